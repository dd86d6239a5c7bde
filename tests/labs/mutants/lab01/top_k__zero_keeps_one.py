# mutant: infero.sampling.top_k
# diagnosis: zero-not-off
# story: k = 0 is raised to 1
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    k = k.clamp(1, logits.shape[-1])
    kth = logits.sort(dim=-1, descending=True).values.gather(-1, (k - 1)[:, None])
    return logits.masked_fill(logits < kth, -math.inf)
