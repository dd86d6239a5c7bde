# mutant: infero.bench.latency
# diagnosis: ttft-in-tpot
# story: TPOT from the start
#| exercise: infero.bench.latency
def latency(due_s, token_times_s):
    if not token_times_s:
        return Latency(math.inf, math.inf, math.inf)
    first, last, n = token_times_s[0], token_times_s[-1], len(token_times_s)
    return Latency(first - due_s, (last - due_s) / n, last - due_s)
