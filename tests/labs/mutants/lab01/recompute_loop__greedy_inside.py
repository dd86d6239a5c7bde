# mutant: infero.generate.recompute_loop
# diagnosis: ignores-pick
# story: takes the largest logit instead of asking pick
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        token = int(next_logits(tokens).argmax())
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
