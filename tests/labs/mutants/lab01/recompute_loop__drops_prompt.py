# mutant: infero.generate.recompute_loop
# story: forgets the prompt after the first token
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    new = []
    for _ in range(max_new_tokens):
        token = pick(next_logits(new or tokens), len(tokens) + len(new))
        if token in stop_tokens:
            return
        yield token
        new.append(token)
