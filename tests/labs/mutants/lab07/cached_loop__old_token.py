# mutant: infero.generate.cached_loop
# diagnosis: last-prompt-token-again
# story: feeds the token before the new one
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start = list(prompt), 0
    previous = prompt[-1]
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), start + len(tokens))
        if token in stop_tokens:
            return
        yield token
        start += len(tokens)
        tokens = [previous]
        previous = token
