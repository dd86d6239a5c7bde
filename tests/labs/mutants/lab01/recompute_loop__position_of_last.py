# mutant: infero.generate.recompute_loop
# diagnosis: position-of-last
# story: position of the last token instead of the new one
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), len(tokens) - 1)
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
