# mutant: infero.bench.latency
# diagnosis: median-gap
# story: the median gap
#| exercise: infero.bench.latency
def latency(due_s, token_times_s):
    if not token_times_s:
        return Latency(math.inf, math.inf, math.inf)
    first, last, n = token_times_s[0], token_times_s[-1], len(token_times_s)
    gaps = sorted(b - a for a, b in zip(token_times_s, token_times_s[1:]))
    return Latency(first - due_s, gaps[len(gaps) // 2] if gaps else 0.0, last - due_s)
