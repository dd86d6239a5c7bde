# mutant: infero.lanes.overlapped
# diagnosis: two-in-flight
# story: two steps ahead
#| exercise: infero.lanes.overlapped
def overlapped(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    planned, ends = 0.0, []
    for n, (plan, run) in enumerate(zip(plan_s, run_s)):
        planned = max(planned, ends[n - 3] if n > 2 else 0.0) + plan
        ends.append(max(planned, ends[-1] if ends else 0.0) + run)
    return ends
