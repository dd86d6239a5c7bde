# mutant: infero.scheduler.share_budget
# diagnosis: one-for-nothing
# story: also those that want nothing
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for most in (1, max_chunk or budget):
        for i, want in enumerate(wants):
            more = max(0, min(min(max(want, 1), most) - grants[i], budget))
            grants[i] += more
            budget -= more
    return grants
