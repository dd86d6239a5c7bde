# mutant: infero.policies.priority_first
# diagnosis: no-ageing
# story: pure priority
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return request.priority
