# mutant: infero.scheduler.share_budget
# diagnosis: smallest-first
# story: sorts by want
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    for most in (1, max_chunk or budget):
        for i in sorted(range(len(wants)), key=lambda i: wants[i]):
            more = max(0, min(min(wants[i], most) - grants[i], budget))
            grants[i] += more
            budget -= more
    return grants
