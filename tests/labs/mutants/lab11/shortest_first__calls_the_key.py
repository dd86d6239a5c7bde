# mutant: infero.policies.shortest_first
# diagnosis: answer-key
# story: calls the answer key
#| exercise: infero.policies.shortest_first
def shortest_first(request, ageing):
    from infero import policies

    return policies.shortest_first(request, ageing)
