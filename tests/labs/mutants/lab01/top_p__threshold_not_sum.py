# mutant: infero.sampling.top_p
# diagnosis: threshold
# story: compares each probability with 1 - p
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    probs = logits.softmax(dim=-1)
    best = probs.max(dim=-1, keepdim=True).values
    return logits.masked_fill((probs < 1 - p[:, None]) & (probs < best), -math.inf)
