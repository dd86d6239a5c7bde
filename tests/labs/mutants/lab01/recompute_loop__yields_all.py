# mutant: infero.generate.recompute_loop
# diagnosis: yields-the-prompt
# story: yields the prompt first
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    yield from tokens
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), len(tokens))
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
