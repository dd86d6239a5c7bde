# mutant: infero.generate.cached_loop
# diagnosis: extra-call
# story: runs the model once more than needed
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    logits, at = step(list(prompt), 0), len(prompt)
    for _ in range(max_new_tokens):
        token = pick(logits, at)
        if token in stop_tokens:
            return
        yield token
        logits = step([token], at)
        at += 1
