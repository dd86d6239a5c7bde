# mutant: infero.generate.cached_loop
# diagnosis: prompt-not-prefilled
# story: runs only the last token of the prompt
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start = [prompt[-1]], len(prompt) - 1
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), start + len(tokens))
        if token in stop_tokens:
            return
        yield token
        start += len(tokens)
        tokens = [token]
