# mutant: infero.policies.priority_first
# diagnosis: arrival-only
# story: first come
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return ageing * request.arrival_s
