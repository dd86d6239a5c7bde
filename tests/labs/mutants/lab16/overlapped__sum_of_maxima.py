# mutant: infero.lanes.overlapped
# diagnosis: slower-lane-sum
# story: the steady state from the first step on
#| exercise: infero.lanes.overlapped
def overlapped(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    ends, now = [], 0.0
    for plan, run in zip(plan_s, run_s):
        now += max(plan, run)
        ends.append(now)
    return ends
