# mutant: infero.generate.recompute_loop
# diagnosis: not-lazy
# story: hands the tokens out only at the end
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens, new = list(prompt), []
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), len(tokens))
        if token in stop_tokens:
            break
        tokens.append(token)
        new.append(token)
    yield from new
