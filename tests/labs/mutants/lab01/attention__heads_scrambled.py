# mutant: infero.model.attention
# diagnosis: heads-scrambled
# story: reshapes where it should transpose
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
    probs = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)
    return torch.einsum("hqc,chd->hqd", probs.to(v.dtype), values).reshape(queries, heads, dim)
