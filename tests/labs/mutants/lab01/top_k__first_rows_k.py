# mutant: infero.sampling.top_k
# diagnosis: first-row
# story: the first row's k for every row
#| exercise: infero.sampling.top_k
def top_k(logits, k):
    k = int(k[0])
    if k <= 0:
        return logits.clone()
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, -math.inf)
