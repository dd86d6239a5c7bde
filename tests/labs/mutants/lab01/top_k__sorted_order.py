# mutant: infero.sampling.top_k
# diagnosis: returns-sorted
# story: returns the logits sorted
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    vocab = logits.shape[-1]
    k = torch.where((k <= 0) | (k > vocab), vocab, k)
    ordered = logits.sort(dim=-1, descending=True).values
    return ordered.masked_fill(torch.arange(vocab) >= k[:, None], -math.inf)
