# mutant: infero.sampling.top_p
# diagnosis: order-not-undone
# story: applies the sorted mask to unsorted logits
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    probs = logits.softmax(dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    drop = (before >= p[:, None]) & (p < 1)[:, None]
    return logits.masked_fill(drop, -math.inf)
