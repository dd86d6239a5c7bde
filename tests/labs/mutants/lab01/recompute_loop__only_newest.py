# mutant: infero.generate.recompute_loop
# diagnosis: only-the-newest
# story: feeds only the newest token, with no cache
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens, position = list(prompt), len(prompt)
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), position)
        if token in stop_tokens:
            return
        yield token
        tokens, position = [token], position + 1
