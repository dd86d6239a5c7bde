# mutant: infero.kernels.steps.attention.paged_decode
# diagnosis: log2
# story: base-2 logarithm
#| exercise: infero.kernels.steps.attention.paged_decode
@triton.jit
def paged_decode_kernel(q, k, v, block_tables, contexts, out, lse, table_width, block_size, group,
                        dim, scale, splits, ROWS: tl.constexpr, KEYS: tl.constexpr,
                        DIM: tl.constexpr):
    request, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    rows = tl.arange(0, ROWS)  # the query heads that share this KV head, padded
    features = tl.arange(0, DIM)
    head = (request * kv_heads + kv_head) * group + rows
    inside = (rows[:, None] < group) & (features[None, :] < dim)
    tile_q = tl.load(q + head[:, None] * dim + features[None, :], mask=inside, other=0.0)

    context = tl.load(contexts + request)
    part = tl.cdiv(tl.cdiv(context, splits), KEYS) * KEYS  # keys a split: whole tiles
    first = split * part
    last = tl.minimum(first + part, context)
    m = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, DIM), tl.float32)
    for start in range(first, last, KEYS):
        p = start + tl.arange(0, KEYS)  # positions in the request
        block = tl.load(block_tables + request * table_width + p // block_size, mask=p < last,
                        other=0).to(tl.int64)
        slot = block * block_size + p % block_size
        there = (slot[:, None] * kv_heads + kv_head) * dim + features[None, :]
        real = (p[:, None] < last) & (features[None, :] < dim)
        tile_k = tl.load(k + there, mask=real, other=0.0)
        tile_v = tl.load(v + there, mask=real, other=0.0)
        s = tl.dot(tile_q, tl.trans(tile_k), input_precision="ieee") * scale
        s = tl.where(p[None, :] < last, s, float("-inf"))
        new_m = tl.maximum(m, tl.max(s, axis=1))
        e = tl.exp(s - new_m[:, None])
        shrink = tl.exp(m - new_m)
        total = total * shrink + tl.sum(e, axis=1)
        acc = acc * shrink[:, None] + tl.dot(e.to(tile_v.dtype), tile_v, input_precision="ieee")
        m = new_m
    seen = total > 0  # an empty split has seen nothing: no 0 / 0, no log(0)
    total = tl.where(seen, total, 1.0)
    log_sum = tl.where(seen, (m + tl.log(total)) * 1.4426950408889634, float("-inf"))
    place = head * splits + split
    tl.store(out + place[:, None] * dim + features[None, :], acc / total[:, None], mask=inside)
    tl.store(lse + place, log_sum, mask=rows < group)


def paged_decode(q: Tensor, k: Tensor, v: Tensor, block_tables: Tensor, contexts: Tensor,
                 block_size: int, scale: float, splits: int) -> tuple[Tensor, Tensor]:
    (requests, heads, dim), kv_heads = q.shape, k.shape[1]
    out = q.new_empty((requests, heads, splits, dim), dtype=torch.float32)
    lse = q.new_empty((requests, heads, splits), dtype=torch.float32)
    group, (_, keys, width) = heads // kv_heads, tile_sizes(q)
    paged_decode_kernel[(requests, kv_heads, splits)](
        q, k, v, block_tables, contexts, out, lse, block_tables.shape[1], block_size, group,
        dim, scale, splits, ROWS=max(16, triton.next_power_of_2(group)), KEYS=keys, DIM=width)
    return out, lse
