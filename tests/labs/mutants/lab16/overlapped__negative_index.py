# mutant: infero.lanes.overlapped
# story: ends[n - 2] of the first steps is taken from the end
#| exercise: infero.lanes.overlapped
def overlapped(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    planned, ends = 0.0, [0.0]
    for n, (plan, run) in enumerate(zip(plan_s, run_s)):
        planned = max(planned, ends[n - 2]) + plan
        ends.append(max(planned, ends[-1]) + run)
    return ends
