# mutant: infero.scheduler.share_budget
# diagnosis: last-first
# story: serves from the back
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for most in (1, max_chunk or budget):
        for i in reversed(range(len(wants))):
            more = max(0, min(min(wants[i], most) - grants[i], budget))
            grants[i] += more
            budget -= more
    return grants
