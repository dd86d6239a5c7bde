# mutant: infero.bench.latency
# diagnosis: from-first-token
# story: E2E starts at the first token
#| exercise: infero.bench.latency
def latency(due_s, token_times_s):
    if not token_times_s:
        return Latency(math.inf, math.inf, math.inf)
    first, last, n = token_times_s[0], token_times_s[-1], len(token_times_s)
    return Latency(first - due_s, (last - first) / max(n - 1, 1), last - first)
