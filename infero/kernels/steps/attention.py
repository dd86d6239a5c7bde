"""Attention in blocks, from the softmax by hand to Triton kernels: Lab 14's versions.

`merge` and `blockwise` are PyTorch; `flash`, `paged_decode` and `combine` are Triton, each as
simple as it can be while it still does the work: one request, one program for one tile of queries;
one program for one part of one request's context. `attend` is what the engine calls with
kernels="steps". `infero/kernels/flash.py` and `decode.py` are where they lead.
Chapter 14; Dao et al., arXiv:2205.14135 and 2307.08691; Milakov and Gimelshein, arXiv:1805.02867.

A *partial result* of attention is a pair: `out`, the weighted mean of the values that were seen,
and `lse`, the logarithm of the sum of the exponentials of their scores. Nothing seen: out 0 and
lse -inf.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infero.kernels import paged_attention
from infero.kernels.language import INTERPRETED, dots, tl, triton

if TYPE_CHECKING:
    from infero.kernels.examples import Example
    from infero.model import Batch

KEYS = 16 if INTERPRETED else 64  # keys a tile: small enough to be interpreted


# ---------------------------------------------------------------- 1 and 2: in PyTorch


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """One partial result of attention from two over different keys: (out, lse).

    out, more: [rows, dim] float32, the weighted means of the values; lse, more_lse: [rows] float32,
    log of the sum of exp(score). A part that saw nothing has out 0 and lse -inf, and so has the
    result where neither saw anything.
    """
    both = torch.logaddexp(lse, more_lse)
    base = both.where(both > -math.inf, 0.0)  # -inf minus -inf would be NaN
    share, rest = (lse - base).exp(), (more_lse - base).exp()
    return out * share[:, None] + more * rest[:, None], both


def blockwise(q: Tensor, k: Tensor, v: Tensor, scale: float, size: int) -> tuple[Tensor, Tensor]:
    """Attention of one head, without a mask, over `size` keys at a time: (out, lse).

    q: [queries, dim]; k, v: [context, dim], context >= 1, the last block may be shorter.
    Returns out [queries, dim] and lse [queries], both float32 and computed in float32. No tensor is
    larger than [queries, size] or [queries, dim]: each block of keys is read once and forgotten.
    """
    q = q.float()
    m = torch.full_like(q[:, 0], -math.inf)  # running maximum of each query's scores
    total = torch.zeros_like(m)  # running sum of exp(score - m)
    acc = torch.zeros_like(q)  # running sum of exp(score - m) * value
    for keys, values in zip(k.split(size), v.split(size), strict=True):
        s = q @ keys.float().T * scale
        new_m = torch.maximum(m, s.amax(dim=1))
        p = torch.exp(s - new_m[:, None])
        shrink = torch.exp(m - new_m)
        total = total * shrink + p.sum(dim=1)
        acc = acc * shrink[:, None] + p @ values.float()
        m = new_m
    return acc / total[:, None], m + total.log()


# ---------------------------------------------------------------- 3: FlashAttention


@triton.jit
def flash_kernel(q, k, v, out, queries, context, heads, group, dim, scale,
                 ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr):
    """One program: ROWS queries of one head, over all tiles of KEYS keys that they may see."""
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
        tile_k = tl.load(k + there, mask=real, other=0.0)
        tile_v = tl.load(v + there, mask=real, other=0.0)
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
    """Causal grouped-query attention of one request in one launch, tile by tile.

    q: [queries, heads, dim]; k, v: [context, kv_heads, dim], context >= queries, all contiguous and
    of one dtype. The queries are the last positions of the context; query head h reads KV head
    h // (heads // kv_heads). Returns [queries, heads, dim] in q's dtype.
    """
    (queries, heads, dim), (context, kv_heads, _) = q.shape, k.shape
    out = torch.empty_like(q)
    rows, keys, width = tile_sizes(q)
    flash_kernel[(triton.cdiv(queries, rows), heads)](
        q, k, v, out, queries, context, heads, heads // kv_heads, dim, scale,
        ROWS=rows, KEYS=keys, DIM=width, num_warps=8 if rows > 64 else 4)
    return out


def tile_sizes(q: Tensor) -> tuple[int, int, int]:
    """Queries and keys a tile, and the width of a head, a power of two of at least 16."""
    width = max(16, triton.next_power_of_2(q.shape[-1]))
    if INTERPRETED:
        return 16, KEYS, width
    return (128, 64, width) if q.element_size() == 2 and width <= 128 else (64, 32, width)


# ---------------------------------------------------------------- 4 and 5: paged decode


@triton.jit
def paged_decode_kernel(q, k, v, block_tables, contexts, out, lse, table_width, block_size, group,
                        dim, scale, splits, ROWS: tl.constexpr, KEYS: tl.constexpr,
                        DIM: tl.constexpr):
    """One program: the queries of one KV head of one request, over one part of its context."""
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
    log_sum = tl.where(seen, m + tl.log(total), float("-inf"))
    place = head * splits + split
    tl.store(out + place[:, None] * dim + features[None, :], acc / total[:, None], mask=inside)
    tl.store(lse + place, log_sum, mask=rows < group)


def paged_decode(q: Tensor, k: Tensor, v: Tensor, block_tables: Tensor, contexts: Tensor,
                 block_size: int, scale: float, splits: int) -> tuple[Tensor, Tensor]:
    """Attention of one new token a request over a paged cache, each context in `splits` parts.

    q: [requests, heads, dim]; k, v: one layer of the cache, [slots, kv_heads, dim]; position p of
    request r lies in slot block_tables[r, p // block_size] * block_size + p % block_size;
    block_tables: [requests, width]; contexts: [requests], how many positions count, 0 for none.
    Split s takes the positions from s * part to (s + 1) * part, where part is context / splits,
    rounded up to whole tiles of keys. Returns partial results, float32: out [requests, heads,
    splits, dim] and lse [requests, heads, splits]; an empty split gives out 0 and lse -inf.
    """
    (requests, heads, dim), kv_heads = q.shape, k.shape[1]
    out = q.new_empty((requests, heads, splits, dim), dtype=torch.float32)
    lse = q.new_empty((requests, heads, splits), dtype=torch.float32)
    group, (_, keys, width) = heads // kv_heads, tile_sizes(q)
    paged_decode_kernel[(requests, kv_heads, splits)](
        q, k, v, block_tables, contexts, out, lse, block_tables.shape[1], block_size, group,
        dim, scale, splits, ROWS=max(16, triton.next_power_of_2(group)), KEYS=keys, DIM=width)
    return out, lse


@triton.jit
def combine_kernel(parts, lses, out, lse, splits, dim, SPLITS: tl.constexpr, DIM: tl.constexpr):
    """One program: all splits of one head of one request."""
    row = tl.program_id(0)
    split, features = tl.arange(0, SPLITS), tl.arange(0, DIM)
    part_lse = tl.load(lses + row * splits + split, mask=split < splits, other=float("-inf"))
    inside = (split[:, None] < splits) & (features[None, :] < dim)
    part = tl.load(parts + (row * splits + split[:, None]) * dim + features[None, :], mask=inside,
                   other=0.0)
    m = tl.max(part_lse, axis=0)
    seen = m > float("-inf")
    m = tl.where(seen, m, 0.0)  # nothing was seen: -inf minus -inf would be NaN
    weight = tl.exp(part_lse - m)
    total = tl.where(seen, tl.sum(weight, axis=0), 1.0)
    mean = tl.sum(part * weight[:, None], axis=0) / total
    log_sum = tl.where(seen, m + tl.log(total), float("-inf"))
    tl.store(out + row * dim + features, mean, mask=features < dim)
    tl.store(lse + row, log_sum)


def combine(out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """The partial results of all splits merged into one: (out, lse).

    out: [requests, heads, splits, dim] and lse: [requests, heads, splits], float32, as
    `paged_decode` returns them. Returns out [requests, heads, dim] and lse [requests, heads],
    float32. Splits with lse -inf count for nothing; where all are empty, out is 0 and lse -inf.
    """
    requests, heads, splits, dim = out.shape
    whole, total = out.new_empty((requests, heads, dim)), lse.new_empty((requests, heads))
    combine_kernel[(requests * heads,)](
        out, lse, whole, total, splits, dim, SPLITS=triton.next_power_of_2(splits),
        DIM=triton.next_power_of_2(dim))
    return whole, total


# ---------------------------------------------------------------- what the engine calls


def usable(q: Tensor, window: int | None) -> bool:
    """Whether these kernels take the work: no sliding window; tensor cores or an interpreter."""
    return triton is not None and window is None and (
        (INTERPRETED and q.is_cpu) or (q.is_cuda and dots(q.device)))


def attend(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float,
           window: int | None) -> Tensor:
    """Attention of a ragged batch over the paged cache, by this module's five functions.

    q: [tokens, heads, dim]; k, v: one layer of the cache, [slots, kv_heads, dim]. Returns
    [tokens, heads, dim]. What these kernels cannot do goes to PyTorch.
    """
    if not usable(q, window):
        return paged_attention.attend(q, k, v, batch, scale, window)
    if q.is_cpu and q.dtype == torch.bfloat16:  # the interpreter multiplies no bfloat16
        return attend(q.float(), k.float(), v.float(), batch, scale, window).to(q.dtype)
    q = q.contiguous()
    if all(n == 1 for n in batch.query_lens):
        return decode(q, k, v, batch, scale)
    out, row = torch.empty_like(q), 0
    for n, slots in zip(batch.query_lens, batch.context_slots, strict=True):
        out[row : row + n] = flash(q[row : row + n], k[slots].contiguous(),
                                   v[slots].contiguous(), scale)
        row += n
    return out


def decode(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float) -> Tensor:
    """One new token a request: blocks that all requests share once, the rest of each by itself.

    Returns [requests, heads, dim] in q's dtype.
    """
    size, shared = batch.block_size, shared_blocks(batch)
    tables = batch.block_tables[:, shared:].contiguous()
    contexts = batch.memo.get("steps.contexts")
    if contexts is None:
        left = [context - shared * size for context in batch.context_lens]
        contexts = torch.tensor(left, dtype=torch.int32, device=q.device)
        batch.memo["steps.contexts"] = contexts
    parts = paged_decode(q, k, v, tables, contexts, size, scale, splits=splits_for(batch, k))
    out, lse = combine(*parts)
    if shared:
        slots = batch.context_slots[0]
        slots = (torch.arange(slots.start, slots.stop, device=q.device)
                 if isinstance(slots, slice) else slots)[: shared * size]
        prefix, prefix_lse = cascade(q, k[slots], v[slots], scale)
        out, _ = merge(prefix.flatten(0, 1), prefix_lse.flatten(), out.flatten(0, 1), lse.flatten())
    return out.view_as(q).to(q.dtype)


def cascade(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """All requests' queries over the prefix that they share, which is read once for all.

    q: [requests, heads, dim]; k, v: [prefix, kv_heads, dim]. Returns out [requests, heads, dim] and
    lse [requests, heads], float32.
    """
    (requests, heads, dim), kv_heads = q.shape, k.shape[1]
    rows = q.view(requests, kv_heads, -1, dim).transpose(0, 1).flatten(1, 2)
    outs, lses = zip(*(blockwise(rows[h], k[:, h], v[:, h], scale, KEYS)
                       for h in range(kv_heads)), strict=True)
    out = torch.stack(outs).view(kv_heads, requests, -1, dim).transpose(0, 1)
    lse = torch.stack(lses).view(kv_heads, requests, -1).transpose(0, 1)
    return out.reshape(q.shape), lse.reshape(requests, heads)


def shared_blocks(batch: Batch) -> int:
    """How many leading blocks all requests have in common: 0 for one request alone.

    Every request keeps at least one token for itself, its newest. Asked once a step; on a GPU the
    host waits for the tables, which the engine's own kernels never do.
    """
    found = batch.memo.get("steps.shared")
    if found is None:
        tables = batch.block_tables.tolist()
        most = (min(batch.context_lens) - 1) // batch.block_size if len(tables) > 1 else 0
        found = 0
        while found < most and len({table[found] for table in tables}) == 1:
            found += 1
        batch.memo["steps.shared"] = found
    return int(found)


def splits_for(batch: Batch, k: Tensor) -> int:
    """Enough parts for two programs on each multiprocessor, none shorter than two tiles."""
    tiles = math.ceil(max(batch.context_lens) / (2 * KEYS))
    if not k.is_cuda:
        return min(3, tiles)
    sms = torch.cuda.get_device_properties(k.device).multi_processor_count
    return max(1, min(tiles, 2 * sms // (len(batch.context_lens) * k.shape[1])))


def examples() -> list[Example]:
    """One call of each kernel, for the tests that compile them for other cards."""
    from infero.kernels.examples import Example

    def types(tensors: str, pointer: str, **others: str) -> dict[str, str]:
        return {**dict.fromkeys(tensors.split(), pointer), **others}

    tiles = {"ROWS": "constexpr", "KEYS": "constexpr", "DIM": "constexpr"}
    count = dict.fromkeys(("group", "dim"), "i32")
    return [
        Example(flash_kernel, types("q k v out", "*bf16", queries="i32", context="i32",
                                    heads="i32", **count, scale="fp32", **tiles),
                {"ROWS": 128, "KEYS": 64, "DIM": 128}, num_warps=8, least=(8, 0), aligned=("dim",)),
        Example(paged_decode_kernel,
                types("q k v", "*fp16", block_tables="*i64", contexts="*i32", out="*fp32",
                      lse="*fp32", table_width="i32", block_size="i32", **count, scale="fp32",
                      splits="i32", **tiles),
                {"ROWS": 16, "KEYS": 64, "DIM": 128}, least=(8, 0), aligned=("dim", "block_size")),
        Example(combine_kernel, types("parts lses out lse", "*fp32", splits="i32", dim="i32",
                                      SPLITS="constexpr", DIM="constexpr"),
                {"SPLITS": 16, "DIM": 128}, aligned=("dim",)),
    ]
