# mutant: infero.kernels.steps.attention.flash
# diagnosis: out-of-bounds
# story: loads keys without a mask
#| exercise: infero.kernels.steps.attention.flash
@triton.jit
def flash_kernel(q, k, v, out, queries, context, heads, group, dim, scale,
                 ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr):
    tile, head = tl.program_id(0), tl.program_id(1)
    rows = tile * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, DIM)
    positions = context - queries + rows  # where each query stands in the context
    at = (rows[:, None] * heads + head) * dim + features[None, :]
    inside = (rows[:, None] < queries) & (features[None, :] < dim)
    tile_q = tl.load(q + at, mask=inside, other=0.0)

    m = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, DIM), tl.float32)
    end = tl.minimum(context, context - queries + (tile + 1) * ROWS)  # one past the last seen
    for start in range(0, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        there = (keys[:, None] * (heads // group) + head // group) * dim + features[None, :]
        real = (keys[:, None] < context) & (features[None, :] < dim)
        tile_k = tl.load(k + there)
        tile_v = tl.load(v + there)
        s = tl.dot(tile_q, tl.trans(tile_k), input_precision="ieee") * scale
        s = tl.where(keys[None, :] <= positions[:, None], s, float("-inf"))
        new_m = tl.maximum(m, tl.max(s, axis=1))
        p = tl.exp(s - new_m[:, None])
        shrink = tl.exp(m - new_m)
        total = total * shrink + tl.sum(p, axis=1)
        acc = acc * shrink[:, None]
        acc += tl.dot(p.to(tile_v.dtype), tile_v, input_precision="ieee")
        m = new_m
    result = acc / total[:, None]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)


def flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    (queries, heads, dim), (context, kv_heads, _) = q.shape, k.shape
    out = torch.empty_like(q)
    rows, keys, width = tile_sizes(q)
    flash_kernel[(triton.cdiv(queries, rows), heads)](
        q, k, v, out, queries, context, heads, heads // kv_heads, dim, scale,
        ROWS=rows, KEYS=keys, DIM=width, num_warps=8 if rows > 64 else 4)
    return out
