# mutant: infero.policies.priority_first
# diagnosis: wrong-type
# story: a tuple sorts as well, but is no number
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return (request.priority, ageing * request.arrival_s)
