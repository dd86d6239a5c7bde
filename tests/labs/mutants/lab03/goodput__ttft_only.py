# mutant: infero.bench.goodput
# diagnosis: ttft-only
# story: looks at TTFT only
#| exercise: infero.bench.goodput
def goodput(latencies, duration_s, ttft_slo_s, tpot_slo_s):
    good = sum(one.ttft_s <= ttft_slo_s for one in latencies)
    return good / duration_s
