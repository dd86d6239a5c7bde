# mutant: infero.sampling.top_k
# diagnosis: largest-k
# story: the largest k of the batch for every row
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    k = int(torch.where(k <= 0, logits.shape[-1], k).max())
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, -math.inf)
