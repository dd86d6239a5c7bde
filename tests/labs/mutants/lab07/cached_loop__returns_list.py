# mutant: infero.generate.cached_loop
# diagnosis: not-an-iterator
# story: collects a list
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start, out = list(prompt), 0, []
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), start + len(tokens))
        if token in stop_tokens:
            return out
        out.append(token)
        start += len(tokens)
        tokens = [token]
    return out
