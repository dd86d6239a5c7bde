# mutant: infero.sampling.top_k
# story: one threshold for all rows
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    flat = logits.flatten().sort(descending=True).values
    k = torch.where((k <= 0) | (k > logits.shape[-1]), logits.shape[-1], k)
    return logits.masked_fill(logits < flat[k - 1][:, None], -math.inf)
