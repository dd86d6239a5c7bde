# mutant: infero.bench.latency
# diagnosis: failed-request
# story: a failed request takes no time
#| exercise: infero.bench.latency
def latency(due_s, token_times_s):
    if not token_times_s:
        return Latency(0.0, 0.0, 0.0)
    first, last, n = token_times_s[0], token_times_s[-1], len(token_times_s)
    return Latency(first - due_s, (last - first) / max(n - 1, 1), last - due_s)
