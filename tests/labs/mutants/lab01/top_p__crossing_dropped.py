# mutant: infero.sampling.top_p
# diagnosis: crossing-token-dropped
# story: drops the token that crosses p
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    probs = logits.softmax(dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True)
    drop_sorted = (ordered.cumsum(dim=-1) >= p[:, None]) & (p < 1)[:, None]
    drop = torch.zeros_like(drop_sorted).scatter(-1, order, drop_sorted)
    return logits.masked_fill(drop, -math.inf)
