# mutant: infero.scheduler.share_budget
# diagnosis: all-or-nothing
# story: no partial chunk
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for i, want in enumerate(wants):
        if want > 0 and budget > 0:
            grants[i] = 1
            budget -= 1
    for i, want in enumerate(wants):
        more = min(want, max_chunk or want) - grants[i]
        if 0 < more <= budget:
            grants[i] += more
            budget -= more
    return grants
