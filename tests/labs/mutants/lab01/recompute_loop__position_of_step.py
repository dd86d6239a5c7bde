# mutant: infero.generate.recompute_loop
# diagnosis: position-of-step
# story: position counts from 0
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for step in range(max_new_tokens):
        token = pick(next_logits(tokens), step)
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
