# mutant: infero.generate.recompute_loop
# diagnosis: yields-stop
# story: yields the stop token
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), len(tokens))
        yield token
        if token in stop_tokens:
            return
        tokens.append(token)
