# mutant: infero.policies.priority_first
# diagnosis: scales-both
# story: bracket in the wrong place
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return ageing * (request.priority + request.arrival_s)
