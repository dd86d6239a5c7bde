# mutant: infero.policies.priority_first
# diagnosis: both-backwards
# story: written for a queue whose largest goes first
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return -(request.priority + ageing * request.arrival_s)
