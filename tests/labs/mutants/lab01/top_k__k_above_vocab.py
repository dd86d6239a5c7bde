# mutant: infero.sampling.top_k
# story: crashes for k above the vocabulary
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    k = torch.where(k <= 0, logits.shape[-1], k)
    kth = logits.sort(dim=-1, descending=True).values.gather(-1, (k - 1)[:, None])
    return logits.masked_fill(logits < kth, -math.inf)
