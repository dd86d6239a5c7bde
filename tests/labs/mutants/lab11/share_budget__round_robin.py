# mutant: infero.scheduler.share_budget
# diagnosis: round-robin
# story: deals the rest evenly
#| exercise: infero.scheduler.share_budget
def share_budget(wants, budget, max_chunk=None):
    grants = [0] * len(wants)
    limit = [min(w, max_chunk or w) for w in wants]
    while budget > 0 and grants != limit:
        for i in range(len(wants)):
            if grants[i] < limit[i] and budget > 0:
                grants[i] += 1
                budget -= 1
    return grants
