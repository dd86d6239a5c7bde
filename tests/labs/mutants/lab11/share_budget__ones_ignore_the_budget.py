# mutant: infero.scheduler.share_budget
# diagnosis: over-budget
# story: one for everybody, budget or not
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [min(want, 1) for want in wants]
    budget -= sum(grants)
    for i, want in enumerate(wants):
        more = max(0, min(min(want, max_chunk or want) - grants[i], budget))
        grants[i] += more
        budget -= more
    return grants
