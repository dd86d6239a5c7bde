# mutant: infero.sampling.top_p
# diagnosis: one-too-many
# story: keeps the token after the crossing one
#| exercise: infero.sampling.top_p
def top_p(logits, p):
    probs = logits.softmax(dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    keep = before < p[:, None]
    keep = keep | keep.roll(1, dims=-1)
    drop_sorted = ~keep & (p < 1)[:, None]
    drop = torch.zeros_like(drop_sorted).scatter(-1, order, drop_sorted)
    return logits.masked_fill(drop, -math.inf)
