# mutant: infero.sampling.top_k
# diagnosis: ties-dropped
# story: keeps exactly k where values tie
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    vocab = logits.shape[-1]
    k = torch.where((k <= 0) | (k > vocab), vocab, k)
    rank = logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return logits.masked_fill(rank >= k[:, None], -math.inf)
