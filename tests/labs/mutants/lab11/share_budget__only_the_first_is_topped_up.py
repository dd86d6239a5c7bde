# mutant: infero.scheduler.share_budget
# diagnosis: wrong
# story: one prompt a step
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for i, want in enumerate(wants):
        if want > 0 and budget > 0:
            grants[i] = 1
            budget -= 1
    for i, want in enumerate(wants):
        if want > 1:
            grants[i] += max(0, min(min(want, max_chunk or want) - grants[i], budget))
            break
    return grants
