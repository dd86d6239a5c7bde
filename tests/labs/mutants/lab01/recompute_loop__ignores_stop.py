# mutant: infero.generate.recompute_loop
# diagnosis: ignores-stop
# story: never stops early
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), len(tokens))
        yield token
        tokens.append(token)
