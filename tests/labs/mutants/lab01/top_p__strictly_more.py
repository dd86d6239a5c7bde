# mutant: infero.sampling.top_p
# diagnosis: equality
# story: goes on where the sum is exactly p
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    probs = logits.softmax(dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    drop_sorted = (before > p[:, None]) & (p < 1)[:, None]
    drop = torch.zeros_like(drop_sorted).scatter(-1, order, drop_sorted)
    return logits.masked_fill(drop, -math.inf)
