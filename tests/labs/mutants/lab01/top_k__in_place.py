# mutant: infero.sampling.top_k
# diagnosis: mutates-input
# story: writes into the caller's logits
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    vocab = logits.shape[-1]
    k = torch.where((k <= 0) | (k > vocab), vocab, k)
    kth = logits.sort(dim=-1, descending=True).values.gather(-1, (k - 1)[:, None])
    return logits.masked_fill_(logits < kth, -math.inf)
