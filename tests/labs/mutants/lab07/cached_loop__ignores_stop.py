# mutant: infero.generate.cached_loop
# diagnosis: extra-call
# story: never stops
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start = list(prompt), 0
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), start + len(tokens))
        yield token
        start += len(tokens)
        tokens = [token]
