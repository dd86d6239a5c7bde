# mutant: infero.generate.recompute_loop
# diagnosis: mutates-input
# story: appends to the caller's list
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    for _ in range(max_new_tokens):
        token = pick(next_logits(prompt), len(prompt))
        if token in stop_tokens:
            return
        yield token
        prompt.append(token)
