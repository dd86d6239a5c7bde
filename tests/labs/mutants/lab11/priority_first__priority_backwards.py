# mutant: infero.policies.priority_first
# diagnosis: priority-backwards
# story: larger is more urgent
#| exercise: infero.policies.priority_first
def priority_first(request, ageing):
    return ageing * request.arrival_s - request.priority
