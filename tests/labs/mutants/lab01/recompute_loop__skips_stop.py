# mutant: infero.generate.recompute_loop
# diagnosis: goes-on-after-stop
# story: swallows the stop token and goes on
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        token = pick(next_logits(tokens), len(tokens))
        tokens.append(token)
        if token not in stop_tokens:
            yield token
