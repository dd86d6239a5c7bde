# mutant: infero.sampling.top_k
# diagnosis: keeps-smallest
# story: sorts upwards
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    vocab = logits.shape[-1]
    k = torch.where((k <= 0) | (k > vocab), vocab, k)
    kth = logits.sort(dim=-1).values.gather(-1, (k - 1)[:, None])
    return logits.masked_fill(logits > kth, -math.inf)
