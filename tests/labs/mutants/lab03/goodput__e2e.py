# mutant: infero.bench.goodput
# diagnosis: e2e-for-ttft
# story: the whole latency against the first limit
#| exercise: infero.bench.goodput
def goodput(latencies, duration_s, ttft_slo_s, tpot_slo_s):
    good = sum(one.e2e_s <= ttft_slo_s and one.tpot_s <= tpot_slo_s for one in latencies)
    return good / duration_s
