# mutant: infero.sampling.top_p
# diagnosis: returns-sorted
# story: returns the logits in sorted order
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    ordered_logits, order = logits.sort(dim=-1, descending=True)
    ordered = ordered_logits.softmax(dim=-1)
    before = ordered.cumsum(dim=-1) - ordered
    return ordered_logits.masked_fill((before >= p[:, None]) & (p < 1)[:, None], -math.inf)
