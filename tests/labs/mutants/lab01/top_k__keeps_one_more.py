# mutant: infero.sampling.top_k
# diagnosis: one-too-many
# story: takes the (k+1)-th largest as the threshold
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    vocab = logits.shape[-1]
    k = torch.where((k <= 0) | (k >= vocab), vocab - 1, k)
    kth = logits.sort(dim=-1, descending=True).values.gather(-1, k[:, None])
    return logits.masked_fill(logits < kth, -math.inf)
