"""FlashAttention forward for Hopper: dense keys through its bulk copy engine, warps specialised.

The same walk as `flash.py`, for keys that lie side by side. One group of warps does nothing but
start bulk copies (TMA) of the next blocks; two others multiply and take the softmax of 64 rows
each, out of step, so that the tensor cores work on one half while the exponentials of the other
are taken. This is FlashAttention-3's plan (arXiv:2407.08608), as far as Triton's compiler takes
it. Chapter 14 compares the two.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from infero.kernels.examples import Example
from infero.kernels.language import INTERPRETED, capability, tl, triton

LOG2E = math.log2(math.e)


@triton.jit
def _walk(mixed, sums, peak, q, keys, values, column, low, high, places, scale,
          BLOCK_N: tl.constexpr, MASKED: tl.constexpr, STAGES: tl.constexpr,
          SPECIALISED: tl.constexpr):
    """The online softmax over key blocks from low (a multiple of BLOCK_N) to high."""
    columns = tl.arange(0, BLOCK_N)
    for start in tl.range(low, high, BLOCK_N, num_stages=STAGES, warp_specialize=SPECIALISED):
        key = keys.load([start, column])
        scores = tl.dot(q, key.T)
        if MASKED:
            seen = (start + columns)[None, :] <= places[:, None]
            scores = tl.where(seen, scores, -1.0e30)
        highest = tl.maximum(peak, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - highest[:, None])
        keep = tl.exp2(peak - highest)
        added = tl.sum(weights, 1)
        mixed = mixed * keep[:, None]
        value = values.load([start, column])
        mixed = tl.dot(weights.to(value.dtype), value, mixed)
        sums = sums * keep + added
        peak = highest
    return mixed, sums, peak


@triton.jit(do_not_specialize=["heads", "blocks"])
def flash_dense(
        q, k, v, out, query_starts, key_starts, q_row, k_row, v_row, o_row, scale, heads, blocks,
        GROUP: tl.constexpr, TOGETHER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
        DIM: tl.constexpr, CAUSAL: tl.constexpr, STAGES: tl.constexpr,
        SPECIALISED: tl.constexpr):
    """One block of queries of one head of one request (grid: heads x blocks, requests).

    Rows of q, k, v and out are [heads * DIM] long, one head after the other.
    """
    number, request = tl.program_id(0), tl.program_id(1)
    bundle, inner = number // (TOGETHER * blocks), number % (TOGETHER * blocks)
    wide = tl.minimum(heads - bundle * TOGETHER, TOGETHER)
    head, block = bundle * TOGETHER + inner % wide, blocks - 1 - inner // wide
    first_row = tl.load(query_starts + request)
    queries = tl.load(query_starts + request + 1) - first_row
    begin = block * BLOCK_M
    first_key = tl.load(key_starts + request)
    context = tl.load(key_starts + request + 1) - first_key
    column, kv_column = head * DIM, head // GROUP * DIM
    kv_wide = heads // GROUP * DIM
    rows, length = tl.maximum(queries, 1), tl.maximum(context, 1)  # no empty descriptors
    block_q = tl.make_tensor_descriptor(
        q + first_row.to(tl.int64) * q_row, [rows, heads * DIM], [q_row, 1],
        [BLOCK_M, DIM]).load([begin, column])
    keys = tl.make_tensor_descriptor(
        k + first_key.to(tl.int64) * k_row, [length, kv_wide], [k_row, 1], [BLOCK_N, DIM])
    values = tl.make_tensor_descriptor(
        v + first_key.to(tl.int64) * v_row, [length, kv_wide], [v_row, 1], [BLOCK_N, DIM])
    results = tl.make_tensor_descriptor(
        out + first_row.to(tl.int64) * o_row, [rows, heads * DIM], [o_row, 1],
        [BLOCK_M, DIM])

    nearest = context - queries + begin  # position of the first query
    if CAUSAL:
        places = tl.minimum(nearest + tl.arange(0, BLOCK_M), context - 1)
        whole = (nearest + 1) // BLOCK_N * BLOCK_N  # keys before it are seen by every row
        high = tl.minimum(context, nearest + BLOCK_M)
    else:
        places = tl.zeros([BLOCK_M], tl.int32) + context - 1
        whole = context // BLOCK_N * BLOCK_N
        high = context
    there = begin < queries  # a program past its request's end walks over nothing, writes nothing
    whole, high = tl.where(there, whole, 0), tl.where(there, high, 0)
    peak = tl.full([BLOCK_M], -1.0e30, tl.float32)
    sums = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, DIM], tl.float32)
    if SPECIALISED:  # the compiler specialises the warps of one loop only: mask everywhere
        mixed, sums, peak = _walk(mixed, sums, peak, block_q, keys, values, kv_column, 0, high,
                                  places, scale, BLOCK_N, True, STAGES, True)
    else:
        mixed, sums, peak = _walk(mixed, sums, peak, block_q, keys, values, kv_column, 0, whole,
                                  places, scale, BLOCK_N, False, STAGES, False)
        mixed, sums, peak = _walk(mixed, sums, peak, block_q, keys, values, kv_column, whole,
                                  high, places, scale, BLOCK_N, True, STAGES, False)
    mixed = (mixed / tl.where(sums == 0.0, 1.0, sums)[:, None]).to(out.dtype.element_ty)
    results.store([tl.where(there, begin, rows), column], mixed)  # outside: not written


def usable(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> bool:
    """Whether the bulk copy engine takes these tensors: Hopper, 16 bits, rows of whole heads."""
    dim = q.shape[2]
    return (q.dtype.itemsize == 2 and dim in (64, 128) and capability(q.device)[0] == 9
            and not INTERPRETED and all(
                t.stride(2) == 1 and t.stride(1) == dim and t.stride(0) % 8 == 0
                and t.data_ptr() % 16 == 0 for t in (q, k, v, out)))


def scratch(size: int, alignment: int, stream: int | None) -> Tensor:
    """Memory for the descriptors that programs make."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


def dense(q: Tensor, k: Tensor, v: Tensor, query_starts: Tensor, key_starts: Tensor, scale: float,
          longest: int, causal: bool, out: Tensor, config: Any) -> Tensor:
    """Start the kernel; `flash.dense` says what the arguments are, `usable` what they must be."""
    heads, dim = q.shape[1:]
    blocks = -(-longest // config.block_m)
    triton.set_allocator(scratch)
    flash_dense[(heads * blocks, query_starts.shape[0] - 1)](
        q, k, v, out, query_starts, key_starts, q.stride(0), k.stride(0), v.stride(0),
        out.stride(0), scale * LOG2E, heads, blocks, heads // k.shape[1], config.together,
        config.block_m, config.block_n, dim, causal, config.stages,
        config.copies == "specialised", num_warps=config.warps)
    return out


def examples() -> list[Example]:
    """Typical calls, compiled by the tests for GPUs that are not here."""
    rows = ("q_row", "k_row", "v_row", "o_row")
    signature = dict.fromkeys(("q", "k", "v", "out"), "*bf16")
    signature |= dict.fromkeys(("query_starts", "key_starts"), "*i32")
    signature |= dict.fromkeys((*rows, "heads", "blocks"), "i32") | {"scale": "fp32"}
    found = []
    for specialised, warps in ((False, 8), (True, 4)):
        constexprs = {"GROUP": 4, "TOGETHER": 8, "BLOCK_M": 128, "BLOCK_N": 128, "DIM": 128,
                      "CAUSAL": True, "STAGES": 2, "SPECIALISED": specialised}
        found.append(Example(flash_dense, signature | dict.fromkeys(constexprs, "constexpr"),
                             constexprs, num_warps=warps, least=(9, 0), aligned=rows))
    return found
