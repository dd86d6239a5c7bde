# mutant: infero.policies.shortest_first
# diagnosis: zero-left
# story: an outlived estimate becomes 0
#| exercise: infero.policies.shortest_first
def shortest_first(request, ageing):
    expected = request.expected_tokens
    if expected is None:
        expected = request.max_new_tokens
    generated = len(request.tokens) - request.prompt_len
    todo = len(request.tokens) - request.computed
    return todo + max(expected - generated, 0) + ageing * request.arrival_s
