# mutant: infero.generate.cached_loop
# story: one token too few
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start = list(prompt), 0
    for _ in range(max_new_tokens - 1):
        token = pick(step(tokens, start), start + len(tokens))
        if token in stop_tokens:
            return
        yield token
        start += len(tokens)
        tokens = [token]
