# mutant: infero.policies.shortest_first
# diagnosis: raises
# story: no estimate is an error
#| exercise: infero.policies.shortest_first
def shortest_first(request, ageing):
    return len(request.tokens) - request.computed + max(request.expected_tokens - (len(request.tokens) - request.prompt_len), 1) + ageing * request.arrival_s
