"""FlashAttention forward in Triton: many new tokens a request, over the paged cache or dense.

A program takes a block of queries of one head and walks over the keys it may see, block by block,
with the online softmax: scores never reach memory (arXiv:2205.14135; the order of the loops and
the split of the work are those of arXiv:2307.08691). Only the blocks at the edges of what is seen
(the diagonal, the far side of a sliding window) pay for a mask. The paged form follows the block
table for the keys of each block (arXiv:2309.06180). Chapter 14 explains every step.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infero import tune
from infero.errors import ParameterError
from infero.kernels import flash_tma
from infero.kernels.examples import Example
from infero.kernels.language import power_of_two, tl, triton

LOG2E = math.log2(math.e)


@triton.jit
def _tile(base, slots, dims, STRIDE: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr):
    """Keys or values of one head in `slots`: [BLOCK_N, WIDE]."""
    where = (base + dims)[None, :] + (slots.to(tl.int64) * STRIDE)[:, None]
    if WIDE != DIM:
        return tl.load(where, mask=(dims < DIM)[None, :], other=0.0)
    return tl.load(where)


@triton.jit
def _walk(q, k, v, table, low, edge, whole, high, last, places, dims, scale, window,
          K_SLOT: tl.constexpr, V_SLOT: tl.constexpr, BLOCK_M: tl.constexpr,
          BLOCK_N: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, SHIFT: tl.constexpr,
          PAGED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
          PRECISION: tl.constexpr, STAGES: tl.constexpr):
    """The online softmax over key blocks from low (a multiple of BLOCK_N) to high.

    Blocks from `edge` to `whole` are seen by every row; the others are masked. Keys past the last
    one are read as the last, and weighed 0.
    """
    columns = tl.arange(0, BLOCK_N)
    inner: tl.constexpr = (1 << SHIFT) - 1
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, WIDE], tl.float32)
    page = columns
    if PAGED:
        page = tl.load(table + (tl.minimum(low + columns, last) >> SHIFT))
    for start in tl.range(low, high, BLOCK_N, num_stages=STAGES):
        slots = tl.minimum(start + columns, last)
        if PAGED:  # the next block's pages are read a step ahead: no load waits for the table
            slots = (page << SHIFT) + (slots & inner)
            page = tl.load(table + (tl.minimum(start + BLOCK_N + columns, last) >> SHIFT))
        key = _tile(k, slots, dims, K_SLOT, DIM, WIDE)
        scores = tl.dot(q, tl.trans(key), input_precision=PRECISION)
        if (start >= whole) | (start < edge):
            keys = start + columns
            seen = (keys <= last)[None, :]
            if CAUSAL:
                seen &= keys[None, :] <= places[:, None]
            if WINDOWED:
                seen &= keys[None, :] > places[:, None] - window
            scores = tl.where(seen, scores, float("-inf"))
        highest = tl.maximum(peak, tl.max(scores, 1) * scale)
        base = highest
        if WINDOWED:  # a row may have seen nothing yet
            base = tl.where(highest == float("-inf"), 0.0, highest)
        weights = tl.exp2(scores * scale - base[:, None])
        keep = tl.exp2(peak - base)
        sums = sums * keep + tl.sum(weights, 1)
        mixed = mixed * keep[:, None]
        value = _tile(v, slots, dims, V_SLOT, DIM, WIDE)
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
        peak = highest
    return mixed / tl.where(sums == 0.0, 1.0, sums)[:, None]


@triton.jit(do_not_specialize=["t_row", "window", "heads", "blocks"],
            do_not_specialize_on_alignment=["query_starts", "key_starts", "contexts", "tables"])
def flash_attention(
        q, k, v, out, query_starts, key_starts, contexts, tables, q_row, q_head, k_head, v_head,
        o_row, o_head, t_row, scale, window, heads, blocks,
        K_SLOT: tl.constexpr, V_SLOT: tl.constexpr, GROUP: tl.constexpr, TOGETHER: tl.constexpr,
        BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
        SHIFT: tl.constexpr, PAGED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
        PRECISION: tl.constexpr, STAGES: tl.constexpr):
    """One block of queries of one head of one request (grid: heads x blocks, requests).

    Heads go TOGETHER, so that their keys stay in the L2 cache; within them the last block comes
    first, because it sees most.
    """
    number, request = tl.program_id(0), tl.program_id(1)
    bundle, inner = number // (TOGETHER * blocks), number % (TOGETHER * blocks)
    wide = tl.minimum(heads - bundle * TOGETHER, TOGETHER)
    head, block = bundle * TOGETHER + inner % wide, blocks - 1 - inner // wide
    first_row = tl.load(query_starts + request)
    queries = tl.load(query_starts + request + 1) - first_row
    begin = block * BLOCK_M
    if begin < queries:
        if PAGED:
            context = tl.load(contexts + request).to(tl.int32)
            table = tables + request.to(tl.int64) * t_row
        else:
            first_key = tl.load(key_starts + request)
            context = (tl.load(key_starts + request + 1) - first_key).to(tl.int32)
            table = tables
            k += first_key.to(tl.int64) * K_SLOT
            v += first_key.to(tl.int64) * V_SLOT
        queries = queries.to(tl.int32)
        rows, dims = begin + tl.arange(0, BLOCK_M), tl.arange(0, WIDE)
        inside = (rows < queries)[:, None] & (dims < DIM)[None, :]
        row = first_row.to(tl.int64) + begin
        q += row * q_row + head * q_head
        local = tl.arange(0, BLOCK_M)
        block_q = tl.load(q + local[:, None] * q_row + dims[None, :], mask=inside, other=0.0)
        kv_head = (head // GROUP).to(tl.int64)
        k += kv_head * k_head
        v += kv_head * v_head

        places = context - queries + rows  # positions of the queries
        nearest = context - queries + begin
        farthest = context - queries + tl.minimum(begin + BLOCK_M, queries) - 1
        low, high = 0, context
        whole = context // BLOCK_N * BLOCK_N  # keys before it are seen by every row
        if CAUSAL:
            high = tl.minimum(context, farthest + 1)
            whole = tl.minimum(whole, (nearest + 1) // BLOCK_N * BLOCK_N)
        edge, last = 0, tl.maximum(context - 1, 0)  # a padded row has no context: 0 comes out
        if WINDOWED:
            low = tl.maximum(nearest - window + 1, 0) // BLOCK_N * BLOCK_N
            edge = tl.cdiv(tl.maximum(farthest - window + 1, 0), BLOCK_N) * BLOCK_N
        mixed = _walk(block_q, k, v, table, low, edge, whole, high, last, places, dims,
                      scale, window, K_SLOT, V_SLOT, BLOCK_M, BLOCK_N, DIM, WIDE, SHIFT, PAGED,
                      CAUSAL, WINDOWED, PRECISION, STAGES)
        out += row * o_row + head * o_head
        tl.store(out + local[:, None] * o_row + dims[None, :], mixed.to(out.dtype.element_ty),
                 mask=inside)


# ---------------------------------------------------------------- the launch


@dataclass(frozen=True)
class Config:
    """How the kernel is built for one class of shapes."""

    block_m: int = 128  # queries a program
    block_n: int = 64  # keys a step of the loop
    warps: int = 8
    stages: int = 3  # steps whose keys are in flight
    together: int = 8  # heads whose blocks run side by side
    copies: str = "threads"  # who copies dense keys: "bulk" engine, "specialised" warps with it


@functools.cache
def default(wide: int, itemsize: int, capability: tuple[int, int] = (9, 0)) -> Config:
    """A sound configuration for head dims up to `wide` and elements of `itemsize` bytes."""
    if itemsize == 4:
        return Config(32, 32 if wide <= 128 else 16, 4, 2)
    if capability < (9, 0):
        return Config(128 if wide <= 128 else 64, 64 if wide <= 64 else 32, 4, 2)
    if wide <= 64:
        return Config(128, 128, 8, 3)
    return Config(128, 64, 8, 3) if wide <= 128 else Config(128, 64, 8, 2)


def shape_class(dim: int, dtype: torch.dtype, paged: bool) -> str:
    """The name of a class of shapes in the table of tuned configurations."""
    wide = power_of_two(max(dim, 16))
    return f"d{wide} {8 * dtype.itemsize} bit {'paged' if paged else 'dense'}"


@functools.cache
def chosen(dim: int, dtype: torch.dtype, paged: bool, device: torch.device) -> Config:
    """The configuration for a shape on a device: tuned, or the default."""
    tuned = tune.best("flash.attention", shape_class(dim, dtype, paged), tune.architecture(device))
    if tuned:
        return Config(**tuned)
    cuda = device.type == "cuda"
    return default(power_of_two(max(dim, 16)), dtype.itemsize,
                   torch.cuda.get_device_capability(device) if cuda else (9, 0))


@functools.cache
def constants(dim: int, dtype: torch.dtype, group: int, block_size: int, paged: bool,
              causal: bool, windowed: bool, config: Config) -> dict[str, Any]:
    """The kernel's constants, worked out once for each kind of call."""
    if block_size & (block_size - 1) or block_size < 1:
        raise ParameterError(f"block_size is {block_size}; the kernel takes powers of two.")
    if dim > 256 or dim % 2:
        raise ParameterError(f"The head dim is {dim}; the kernel takes even ones up to 256.")
    return {"GROUP": group, "TOGETHER": config.together, "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n, "DIM": dim, "WIDE": power_of_two(max(dim, 16)),
            "SHIFT": block_size.bit_length() - 1, "PAGED": paged, "CAUSAL": causal,
            "WINDOWED": windowed, "STAGES": config.stages, "num_warps": config.warps,
            "PRECISION": "ieee" if dtype is torch.float32 else "tf32"}


def attention(q: Tensor, k: Tensor, v: Tensor, query_starts: Tensor, contexts: Tensor,
              block_tables: Tensor, block_size: int, scale: float, window: int | None = None, *,
              longest_query: int, out: Tensor | None = None,
              config: Config | None = None) -> Tensor:
    """Causal attention of a ragged batch over the paged cache.

    q: [tokens, heads, dim], rows query_starts[r] to query_starts[r + 1] of request r, the last of
    its contexts[r] tokens; k, v: one layer of the cache, [slots, kv_heads, dim]; block_tables:
    [requests, width]; longest_query: rows of the request that has most. Returns q's shape.
    """
    return launch(q, k, v, query_starts, query_starts, contexts, block_tables, block_size, scale,
                  window, longest_query, True, out, config, paged=True)


def dense(q: Tensor, k: Tensor, v: Tensor, query_starts: Tensor, key_starts: Tensor, scale: float,
          window: int | None = None, *, longest_query: int, causal: bool = True,
          out: Tensor | None = None, config: Config | None = None) -> Tensor:
    """The same over keys that lie side by side: request r's are key_starts[r] to [r + 1].

    q: [tokens, heads, dim]; k, v: [keys, kv_heads, dim]. Its queries are its last tokens, and see
    all keys if not causal.
    """
    if window is not None and not causal:
        raise ParameterError(f"window is {window} without causal; a window looks back only.")
    return launch(q, k, v, query_starts, key_starts, query_starts, query_starts, 1, scale, window,
                  longest_query, causal, out, config, paged=False)


def launch(q: Tensor, k: Tensor, v: Tensor, query_starts: Tensor, key_starts: Tensor,
           contexts: Tensor, tables: Tensor, block_size: int, scale: float, window: int | None,
           longest: int, causal: bool, out: Tensor | None, config: Config | None,
           paged: bool) -> Tensor:
    """Start the kernel; see `attention` and `dense`."""
    (tokens, heads, dim), kv_heads = q.shape, k.shape[1]
    if out is None:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    requests = query_starts.shape[0] - 1
    if not tokens or not requests:
        return out
    config = config or chosen(dim, q.dtype, paged, q.device)
    if config.copies != "threads" and not paged and window is None and flash_tma.usable(
            q, k, v, out):
        return flash_tma.dense(q, k, v, query_starts, key_starts, scale, longest, causal, out,
                               config)
    built = constants(dim, q.dtype, heads // kv_heads, block_size, paged, causal,
                      window is not None, config)
    blocks = -(-longest // config.block_m)
    flash_attention[(heads * blocks, requests)](
        q, k, v, out, query_starts, key_starts, contexts, tables, q.stride(0), q.stride(1),
        k.stride(1), v.stride(1), out.stride(0), out.stride(1), tables.stride(0), scale * LOG2E,
        window or 0, heads, blocks, k.stride(0), v.stride(0), **built)
    return out


def tunables() -> list[tune.Tunable]:
    """What `infero tune` may try."""
    from infero.kernels import attention_tuning

    return attention_tuning.prefilling()


# ---------------------------------------------------------------- for the compile test


def example(dim: int = 128, dtype: str = "bf16", paged: bool = True, windowed: bool = False,
            config: Config | None = None, least: tuple[int, int] = (8, 0)) -> Example:
    """A call of the kernel for `infero.kernels.examples`."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    config = config or default(power_of_two(max(dim, 16)), kind.itemsize, least)
    built = constants(dim, kind, 4, 16 if paged else 1, paged, True, windowed, config)
    numbers = ("q_row", "q_head", "k_head", "v_head", "o_row", "o_head")
    constexprs = {name: value for name, value in built.items() if name != "num_warps"}
    constexprs |= {"K_SLOT": 8 * dim, "V_SLOT": 8 * dim}
    signature = dict.fromkeys(("q", "k", "v", "out"), "*" + dtype)
    signature |= dict.fromkeys(("query_starts", "key_starts", "contexts", "tables"), "*i32")
    signature |= dict.fromkeys((*numbers, "t_row"), "i32") | {"scale": "fp32"}
    signature |= dict.fromkeys(("window", "heads", "blocks"), "i32")
    signature |= dict.fromkeys(constexprs, "constexpr")
    return Example(flash_attention, signature, constexprs, num_warps=config.warps, least=least,
                   aligned=numbers)


def examples() -> list[Example]:
    """Typical calls, compiled by the tests for GPUs that are not here."""
    return [example(least=(9, 0)), example(paged=False, least=(9, 0)), example(64, windowed=True),
            example(80, "fp32", least=(7, 5)), example(256, least=(9, 0))]
