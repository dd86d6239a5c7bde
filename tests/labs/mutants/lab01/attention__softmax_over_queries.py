# mutant: infero.model.attention
# diagnosis: softmax-over-queries
# story: normalises over the queries
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
    probs = scores.masked_fill(hidden, -1e30).softmax(dim=-2)
    return torch.einsum("hqc,chd->qhd", probs.to(v.dtype), values)
