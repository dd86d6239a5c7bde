# mutant: infero.bench.goodput
# diagnosis: either-limit
# story: keeps one of the limits
#| exercise: infero.bench.goodput
def goodput(latencies, duration_s, ttft_slo_s, tpot_slo_s):
    good = sum(one.ttft_s <= ttft_slo_s or one.tpot_s <= tpot_slo_s for one in latencies)
    return good / duration_s
