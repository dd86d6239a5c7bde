# mutant: infero.scheduler.share_budget
# diagnosis: prompt-blocks-decodes
# story: first come takes all
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = []
    for want in wants:
        n = min(want, max_chunk or budget, budget)
        grants.append(n)
        budget -= n
    return grants
