# mutant: infero.sampling.top_k
# diagnosis: zero-drops-all
# story: k = 0 is not off
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    k = k.clamp(max=logits.shape[-1])
    rank = logits.argsort(dim=-1, descending=True).argsort(dim=-1)
    return logits.masked_fill(rank >= k[:, None], -math.inf)
