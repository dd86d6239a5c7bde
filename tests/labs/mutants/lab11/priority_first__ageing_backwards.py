# mutant: infero.policies.priority_first
# diagnosis: ageing-backwards
# story: subtracts the arrival
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return request.priority - ageing * request.arrival_s
