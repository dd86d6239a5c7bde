# mutant: infero.scheduler.share_budget
# diagnosis: wrong-type
# story: only those that got something
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for most in (1, max_chunk or budget):
        for i, want in enumerate(wants):
            more = max(0, min(min(want, most) - grants[i], budget))
            grants[i] += more
            budget -= more
    return {i: n for i, n in enumerate(grants) if n}
