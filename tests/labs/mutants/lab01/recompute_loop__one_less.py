# mutant: infero.generate.recompute_loop
# diagnosis: one-too-few
# story: one token too few
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(1, max_new_tokens):
        token = pick(next_logits(tokens), len(tokens))
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
