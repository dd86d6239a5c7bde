# mutant: infero.policies.shortest_first
# diagnosis: no-default
# story: no estimate counts as no output
#| exercise: infero.policies.shortest_first
def shortest_first(request, ageing):
    expected = request.expected_tokens
    if expected is None:
        expected = request.max_new_tokens
    generated = len(request.tokens) - request.prompt_len
    todo = len(request.tokens) - request.computed
    return todo + max((request.expected_tokens or 0) - generated, 1) + ageing * request.arrival_s
