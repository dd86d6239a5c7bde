# mutant: infero.generate.cached_loop
# diagnosis: position-constant
# story: pick gets the same position each time
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start = list(prompt), 0
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), len(prompt))
        if token in stop_tokens:
            return
        yield token
        start += len(tokens)
        tokens = [token]
