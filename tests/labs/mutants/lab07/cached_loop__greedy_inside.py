# mutant: infero.generate.cached_loop
# diagnosis: ignores-pick
# story: takes the largest logit
#| exercise: infero.generate.cached_loop
def cached_loop(step, pick, prompt, max_new_tokens, stop_tokens):
    tokens, start = list(prompt), 0
    for _ in range(max_new_tokens):
        logits = step(tokens, start)
        pick(logits, start + len(tokens))
        token = int(logits.argmax())
        if token in stop_tokens:
            return
        yield token
        start += len(tokens)
        tokens = [token]
