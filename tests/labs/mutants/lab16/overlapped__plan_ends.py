# mutant: infero.lanes.overlapped
# diagnosis: plan-ends
# story: returns when steps are planned
#| exercise: infero.lanes.overlapped
def overlapped(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    planned, ends, found = 0.0, [], []
    for n, (plan, run) in enumerate(zip(plan_s, run_s)):
        planned = max(planned, ends[n - 2] if n > 1 else 0.0) + plan
        ends.append(max(planned, ends[-1] if ends else 0.0) + run)
        found.append(planned)
    return found
