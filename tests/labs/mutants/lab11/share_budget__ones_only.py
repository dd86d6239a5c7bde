# mutant: infero.scheduler.share_budget
# diagnosis: ones-only
# story: everybody gets one, nothing more
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = []
    for want in wants:
        n = min(want, 1, budget)
        grants.append(n)
        budget -= n
    return grants
