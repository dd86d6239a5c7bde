# mutant: infero.generate.cached_loop
# diagnosis: not-lazy
# story: works everything out before it yields
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start, out = list(prompt), 0, []
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), start + len(tokens))
        if token in stop_tokens:
            break
        out.append(token)
        start += len(tokens)
        tokens = [token]
    yield from out
