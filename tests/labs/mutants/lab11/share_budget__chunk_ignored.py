# mutant: infero.scheduler.share_budget
# diagnosis: chunk-ignored
# story: ignores max_chunk
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for most in (1, budget):
        for i, want in enumerate(wants):
            more = max(0, min(min(want, most) - grants[i], budget))
            grants[i] += more
            budget -= more
    return grants
