# mutant: infero.generate.recompute_loop
# diagnosis: stops-on-prompt
# story: stops because the prompt holds a stop token
#| exercise: infero.generate.recompute_loop
def recompute_loop(next_logits, pick, prompt, max_new_tokens, stop_tokens):
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        if any(t in stop_tokens for t in tokens):
            return
        token = pick(next_logits(tokens), len(tokens))
        if token in stop_tokens:
            return
        yield token
        tokens.append(token)
