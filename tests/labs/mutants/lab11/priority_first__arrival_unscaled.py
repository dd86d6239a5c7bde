# mutant: infero.policies.priority_first
# diagnosis: arrival-unscaled
# story: forgets the rate
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return request.priority + request.arrival_s
