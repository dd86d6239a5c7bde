# mutant: infero.lanes.overlapped
# diagnosis: device-in-parallel
# story: a step begins while the one before runs
#| exercise: infero.lanes.overlapped
def overlapped(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    planned, ends = 0.0, []
    for n, (plan, run) in enumerate(zip(plan_s, run_s)):
        planned = max(planned, ends[n - 2] if n > 1 else 0.0) + plan
        ends.append(planned + run)
    return ends
