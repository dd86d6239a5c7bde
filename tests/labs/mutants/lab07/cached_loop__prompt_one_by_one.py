# mutant: infero.generate.cached_loop
# diagnosis: prompt-one-by-one
# story: feeds the prompt token by token
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    logits = None
    for start, token in enumerate(prompt):
        logits = step([token], start)
    for i in range(max_new_tokens):
        token = pick(logits, len(prompt) + i)
        if token in stop_tokens:
            return
        yield token
        if i + 1 < max_new_tokens:
            logits = step([token], len(prompt) + i)
