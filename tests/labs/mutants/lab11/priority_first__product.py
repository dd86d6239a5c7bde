# mutant: infero.policies.priority_first
# diagnosis: product
# story: multiplies
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return request.priority * ageing * request.arrival_s
