# mutant: infero.model.attention
# story: assumes one KV head a query head
#| exercise: infero.model.attention
def attention(q, k, v, scale, window=None):
    queries, heads, dim = q.shape
    context, kv_heads, _ = k.shape
    keys, values = k, v
    scores = torch.einsum("qhd,chd->hqc", q, keys).float() * scale
    i = torch.arange(context - queries, context)[:, None]
    j = torch.arange(context)[None, :]
    hidden = j > i
    if window is not None:
        hidden = hidden | (j <= i - window)
    probs = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)
    return torch.einsum("hqc,chd->qhd", probs.to(v.dtype), values)
