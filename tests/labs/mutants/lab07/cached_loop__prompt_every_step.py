# mutant: infero.generate.cached_loop
# diagnosis: prompt-again
# story: runs the prompt in every step
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start = list(prompt), 0
    for _ in range(max_new_tokens):
        token = pick(step(tokens, start), len(prompt) + _)
        if token in stop_tokens:
            return
        yield token
