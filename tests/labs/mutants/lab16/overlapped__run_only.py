# mutant: infero.lanes.overlapped
# diagnosis: run-only
# story: planning is free
#| exercise: infero.lanes.overlapped
def overlapped(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    ends, now = [], 0.0
    for run in run_s:
        now += run
        ends.append(now)
    return ends
