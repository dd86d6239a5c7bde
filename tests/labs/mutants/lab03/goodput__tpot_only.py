# mutant: infero.bench.goodput
# diagnosis: tpot-only
# story: looks at TPOT only
#| exercise: infero.bench.goodput
def goodput(latencies, duration_s, ttft_slo_s, tpot_slo_s):
    good = sum(one.tpot_s <= tpot_slo_s for one in latencies)
    return good / duration_s
