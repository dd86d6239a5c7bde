# mutant: infero.bench.goodput
# story: the mean against the limits
#| exercise: infero.bench.goodput
def goodput(latencies, duration_s, ttft_slo_s, tpot_slo_s):
    n = max(1, len(latencies))
    ok = sum(one.ttft_s for one in latencies) / n <= ttft_slo_s and sum(one.tpot_s for one in latencies) / n <= tpot_slo_s
    return len(latencies) / duration_s if ok else 0.0
