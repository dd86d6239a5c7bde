# mutant: infero.scheduler.share_budget
# diagnosis: chunk-on-top
# story: one token and then a whole chunk
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for i, want in enumerate(wants):
        if want > 0 and budget > 0:
            grants[i] = 1
            budget -= 1
    for i, want in enumerate(wants):
        more = min(want - grants[i], max_chunk or budget, budget)
        grants[i] += more
        budget -= more
    return grants
