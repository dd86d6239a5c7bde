# mutant: infero.sampling.top_p
# diagnosis: order-applied-twice
# story: gathers with the order instead of scattering
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    probs = logits.softmax(dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    drop_sorted = (before >= p[:, None]) & (p < 1)[:, None]
    drop = drop_sorted.gather(-1, order)
    return logits.masked_fill(drop, -math.inf)
