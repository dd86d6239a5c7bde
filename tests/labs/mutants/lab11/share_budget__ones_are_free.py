# mutant: infero.scheduler.share_budget
# diagnosis: over-budget
# story: does not count the first round
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    left = budget
    for i, want in enumerate(wants):
        if want > 0 and left > 0:
            grants[i] = 1
            left -= 1
    left = budget
    for i, want in enumerate(wants):
        more = max(0, min(min(want, max_chunk or want) - grants[i], left))
        grants[i] += more
        left -= more
    return grants
