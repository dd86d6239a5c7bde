# mutant: infero.sampling.top_p
# diagnosis: first-row
# story: the first row's p for every row
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    probs = logits.softmax(dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    drop_sorted = (before >= p[0]) & (p[0] < 1)
    drop = torch.zeros_like(drop_sorted).scatter(-1, order, drop_sorted)
    return logits.masked_fill(drop, -math.inf)
