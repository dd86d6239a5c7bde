# mutant: infero.generate.recompute_loop
# diagnosis: extra-call
# story: runs the model once more than needed
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    logits = next_logits(tokens)
    for _ in range(max_new_tokens):
        token = pick(logits, len(tokens))
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
        logits = next_logits(tokens)
