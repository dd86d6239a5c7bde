# mutant: infero.policies.shortest_first
# diagnosis: mutates-input
# story: keeps the key in the request
#| exercise: infero.policies.shortest_first
def shortest_first(request, ageing):
    expected = request.expected_tokens or request.max_new_tokens
    generated = len(request.tokens) - request.prompt_len
    request.key = len(request.tokens) - request.computed + max(expected - generated, 1)
    request.key += ageing * request.arrival_s
    return request.key
