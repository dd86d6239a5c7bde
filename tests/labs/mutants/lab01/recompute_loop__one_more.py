# mutant: infero.generate.recompute_loop
# diagnosis: one-too-many
# story: one token too many
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(max_new_tokens + 1):
        token = pick(next_logits(tokens), len(tokens))
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
