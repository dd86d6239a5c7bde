# mutant: infero.model.attention
# diagnosis: unstable-softmax
# story: exponentials without subtracting the largest
#| exercise: infero.model.attention
def attention(q, k, v, scale, window=None):
    queries, heads, dim = q.shape
    context, kv_heads, _ = k.shape
    keys = k.repeat_interleave(heads // kv_heads, dim=1)
    values = v.repeat_interleave(heads // kv_heads, dim=1)
    scores = torch.einsum("qhd,chd->hqc", q, keys).float() * scale
    i = torch.arange(context - queries, context)[:, None]
    j = torch.arange(context)[None, :]
    hidden = j > i
    if window is not None:
        hidden = hidden | (j <= i - window)
    weights = scores.exp().masked_fill(hidden, 0.0)
    probs = weights / weights.sum(dim=-1, keepdim=True)
    return torch.einsum("hqc,chd->qhd", probs.to(v.dtype), values)
