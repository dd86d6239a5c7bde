# mutant: infero.bench.goodput
# diagnosis: share
# story: the share of good requests
#| exercise: infero.bench.goodput
def goodput(latencies, duration_s, ttft_slo_s, tpot_slo_s):
    good = sum(one.ttft_s <= ttft_slo_s and one.tpot_s <= tpot_slo_s for one in latencies)
    return good / max(1, len(latencies))
