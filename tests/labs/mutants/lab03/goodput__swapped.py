# mutant: infero.bench.goodput
# diagnosis: swapped-limits
# story: the limits exchanged
#| exercise: infero.bench.goodput
def goodput(latencies, duration_s, ttft_slo_s, tpot_slo_s):
    good = sum(one.ttft_s <= tpot_slo_s and one.tpot_s <= ttft_slo_s for one in latencies)
    return good / duration_s
