# mutant: infero.generate.recompute_loop
# diagnosis: counts-the-prompt
# story: max_new_tokens counts the prompt too
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    while len(tokens) < max_new_tokens:
        token = pick(next_logits(tokens), len(tokens))
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
