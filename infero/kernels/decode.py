"""Decode attention: few new queries a request over the paged KV cache, with the context split.

Each program takes one KV head of one request and one piece of its context, walks the block table,
and keeps the running maximum and sum of the online softmax (arXiv:1805.02867, arXiv:2205.14135).
The query heads that share the KV head (GQA) are the rows of its small matrix products, so keys and
values are read once. Pieces are combined by the program that finishes last ("flash decoding",
arXiv:2311.01282 describes the idea), in the order of the pieces: the result does not depend on who
that was. Chapter 14 explains it and walks from the first version to this one.
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
from infero.kernels import overlap
from infero.kernels.examples import Example
from infero.kernels.language import power_of_two, tl, triton

LOG2E = math.log2(math.e)
FIXED_PIECES = 16  # deterministic: at most so many pieces,
FIXED_LENGTH = 256  # of at least so many keys, whatever the batch and `splits` are


@triton.jit
def _piece(q, k, v, table, low, high, limit, dims, k_slot, v_slot, scale, window,
           ROWS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
           SHIFT: tl.constexpr, WINDOWED: tl.constexpr, PRECISION: tl.constexpr,
           STAGES: tl.constexpr):
    """Attention of q [ROWS, WIDE] over keys low..high: (normalised [ROWS, WIDE], log2 of sums)."""
    columns = tl.arange(0, BLOCK)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)  # one a column: added up at the end
    mixed = tl.zeros([ROWS, WIDE], tl.float32)
    page = tl.load(table + ((low + columns) >> SHIFT), mask=low + columns < high, other=0)
    for start in tl.range(low, high, BLOCK, num_stages=STAGES):
        keys = start + columns
        there = keys < high
        slots = (page.to(tl.int64) << SHIFT) + (keys & ((1 << SHIFT) - 1))
        later = keys + BLOCK  # one step ahead: a load never waits for the table
        page = tl.load(table + (later >> SHIFT), mask=later < high, other=0)
        if WIDE == DIM:
            valid = there[:, None]
        else:
            valid = there[:, None] & (dims < DIM)[None, :]
        key = tl.load(k + slots[:, None] * k_slot + dims[None, :], mask=valid, other=0.0)
        scores = tl.dot(q, tl.trans(key), input_precision=PRECISION) * scale
        seen = keys[None, :] <= limit[:, None]
        if WINDOWED:
            seen &= keys[None, :] > limit[:, None] - window
        scores = tl.where(seen, scores, float("-inf"))
        highest = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(highest == float("-inf"), 0.0, highest)  # a row may see nothing here
        weights = tl.exp2(scores - base[:, None])
        keep = tl.exp2(peak - base)
        sums = sums * keep[:, None] + weights
        value = tl.load(v + slots[:, None] * v_slot + dims[None, :], mask=valid, other=0.0)
        mixed = tl.dot(weights.to(value.dtype), value, mixed * keep[:, None],
                       input_precision=PRECISION)
        peak = highest
    total = tl.sum(sums, 1)
    none = total == 0.0
    mixed = mixed / tl.where(none, 1.0, total)[:, None]
    return mixed, tl.where(none, float("-inf"), peak + tl.log2(tl.where(none, 1.0, total)))


@triton.jit
def _cut(context, most, least, window, QUERIES: tl.constexpr, BLOCK: tl.constexpr,
         WINDOWED: tl.constexpr):
    """Where the context is cut: (first key, keys a piece, pieces: at most `most`)."""
    first = 0
    if WINDOWED:
        first = tl.maximum(context - QUERIES + 1 - window, 0) // BLOCK * BLOCK
    blocks = tl.cdiv(context - first, BLOCK)
    each = tl.maximum(tl.cdiv(blocks, most), tl.cdiv(least, BLOCK))
    return first, each * BLOCK, tl.cdiv(blocks, each)


@triton.jit
def _combine(partial, sums, out, pieces, o_row, o_head,
             GROUP: tl.constexpr, USED: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
             WIDE: tl.constexpr, PIECES: tl.constexpr, CHUNK: tl.constexpr):
    """Weigh the pieces [pieces, USED, DIM] by their sums [pieces, USED] and write out the rows."""
    rows, dims = tl.arange(0, ROWS), tl.arange(0, WIDE)
    every = tl.arange(0, PIECES)
    logs = tl.load(sums + every[:, None] * USED + rows[None, :], cache_modifier=".cg",
                   mask=(every < pieces)[:, None] & (rows < USED)[None, :], other=float("-inf"))
    highest = tl.max(logs, 0)
    highest = tl.where(highest == float("-inf"), 0.0, highest)
    total = tl.sum(tl.exp2(logs - highest[None, :]), 0)
    mixed = tl.zeros([ROWS, WIDE], tl.float32)
    inside = (rows < USED)[:, None] & (dims < DIM)[None, :]
    for start in range(0, pieces, CHUNK):
        some = start + tl.arange(0, CHUNK)
        log = tl.load(sums + some[:, None] * USED + rows[None, :], cache_modifier=".cg",
                      mask=(some < pieces)[:, None] & (rows < USED)[None, :],
                      other=float("-inf"))
        at = (some[:, None, None] * USED + rows[None, :, None]) * DIM + dims[None, None, :]
        part = tl.load(partial + at, mask=(some < pieces)[:, None, None] & inside[None, :, :],
                       other=0.0, cache_modifier=".cg")
        mixed += tl.sum(part * tl.exp2(log - highest[None, :])[:, :, None], 0)
    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    where = out + (rows // GROUP)[:, None] * o_row + (rows % GROUP)[:, None] * o_head
    tl.store(where + dims[None, :], mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["t_row", "window", "most", "least"],
            do_not_specialize_on_alignment=["tables", "contexts"])  # views of larger tensors
def decode_attention(
        q, k, v, tables, contexts, out, partial, sums, tickets, q_row, q_head, k_slot, k_head,
        v_slot, v_head, o_row, o_head, t_row, scale, window, most, least,
        QUERIES: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, FEW: tl.constexpr,
        DIM: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, SHIFT: tl.constexpr,
        WINDOWED: tl.constexpr, TICKET: tl.constexpr, PRECISION: tl.constexpr,
        STAGES: tl.constexpr, PIECES: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr):
    """One KV head of one request and one piece of its context (grid: heads, splits, requests)."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    head, split, request = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(1)
    USED: tl.constexpr = QUERIES * GROUP
    context = tl.load(contexts + request).to(tl.int32)
    rows, dims = tl.arange(0, ROWS), tl.arange(0, WIDE)
    query, member = rows // GROUP, rows % GROUP
    inside = (rows < USED)[:, None] & (dims < DIM)[None, :]
    row = request.to(tl.int64) * QUERIES
    out += row * o_row + head * GROUP * o_head
    where = out + query[:, None] * o_row + member[:, None] * o_head + dims[None, :]
    if context == 0:  # a padded row of a captured batch
        if split == 0:
            tl.store(where, tl.zeros([ROWS, WIDE], out.dtype.element_ty), mask=inside)
    else:
        first, length, pieces = _cut(context, most, least, window, QUERIES, BLOCK, WINDOWED)
        if split < pieces:
            q += row * q_row + head * GROUP * q_head
            query_rows = tl.load(
                q + query[:, None] * q_row + member[:, None] * q_head + dims[None, :],
                mask=inside, other=0.0)
            limit = context - QUERIES + query  # the last key that each row sees
            home = request.to(tl.int64) * tl.num_programs(0) + head
            partial += home * most * USED * DIM
            sums += home * most * USED
            k += head.to(tl.int64) * k_head
            v += head.to(tl.int64) * v_head
            tables += request.to(tl.int64) * t_row
            for piece in range(split, pieces, splits):  # one, unless deterministic
                low = first + piece * length
                mixed, log = _piece(query_rows, k, v, tables, low,
                                    tl.minimum(low + length, context), limit, dims, k_slot, v_slot,
                                    scale, window, ROWS, DIM, WIDE, BLOCK, SHIFT, WINDOWED,
                                    PRECISION, STAGES)
                if PIECES == 1 or pieces == 1:
                    tl.store(where, mixed.to(out.dtype.element_ty), mask=inside)
                else:
                    tl.store(sums + piece * USED + rows, log, mask=rows < USED)
                    tl.store(partial + (piece * USED + rows[:, None]) * DIM + dims[None, :], mixed,
                             mask=inside)
            if TICKET and PIECES > 1:  # noqa: SIM102  a constant first, then a number
                if pieces > 1:
                    tl.debug_barrier()  # every thread's stores come before the ticket
                    ticket = tickets + request * tl.num_programs(0) + head
                    drawn = tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu")
                    if drawn == tl.minimum(pieces, splits) - 1:
                        _combine(partial, sums, out, pieces, o_row, o_head, GROUP, USED, FEW, DIM,
                                 WIDE, PIECES, CHUNK)
                        tl.store(ticket, 0)  # ready for the next launch, a replayed one too


@triton.jit(do_not_specialize=["window", "most", "least"])
def decode_combine(
        contexts, out, partial, sums, o_row, o_head, window, most, least,
        QUERIES: tl.constexpr, GROUP: tl.constexpr, FEW: tl.constexpr, DIM: tl.constexpr,
        WIDE: tl.constexpr, BLOCK: tl.constexpr, WINDOWED: tl.constexpr,
        PIECES: tl.constexpr, CHUNK: tl.constexpr):
    """The reduction as a launch of its own (grid: heads, requests); chapter 14 compares both."""
    head, request = tl.program_id(0), tl.program_id(1)
    USED: tl.constexpr = QUERIES * GROUP
    context = tl.load(contexts + request).to(tl.int32)
    if context > 0:
        pieces = _cut(context, most, least, window, QUERIES, BLOCK, WINDOWED)[2]
        if pieces > 1:
            home = request.to(tl.int64) * tl.num_programs(0) + head
            out += request.to(tl.int64) * QUERIES * o_row + head * GROUP * o_head
            _combine(partial + home * most * USED * DIM, sums + home * most * USED, out, pieces,
                     o_row, o_head, GROUP, USED, FEW, DIM, WIDE, PIECES, CHUNK)


# ---------------------------------------------------------------- the launch


@dataclass(frozen=True)
class Config:
    """How the kernel is built for one class of shapes."""

    block: int = 32  # keys a step of the loop
    warps: int = 2
    stages: int = 3  # steps whose keys are in flight
    least: int = 0  # keys a piece at least; 0: by how many programs there are
    ticket: bool = True  # combine in the same launch


@functools.cache
def default(wide: int, itemsize: int) -> Config:
    """A sound configuration for head dims up to `wide` and elements of `itemsize` bytes."""
    if itemsize == 4 or wide > 128:
        return Config(warps=4, stages=2)
    return Config()


@functools.cache
def constants(dim: int, dtype: torch.dtype, group: int, queries: int, block_size: int,
              windowed: bool, pieces: int, config: Config) -> dict[str, Any]:
    """The kernel's constants, worked out once for each kind of call."""
    used, wide = queries * group, power_of_two(max(dim, 16))
    if block_size & (block_size - 1) or block_size < 1:
        raise ParameterError(f"block_size is {block_size}; the kernel takes powers of two.")
    if dim > 256 or dim % 2:
        raise ParameterError(f"The head dim is {dim}; the kernel takes even ones up to 256.")
    if used > 128:
        raise ParameterError(f"{queries} queries of {group} heads are {used} rows a KV head; this "
                             "kernel takes 128: use flash.attention for chunks.")
    few, held = power_of_two(used), 4 ** -(-(pieces - 1).bit_length() // 2)  # few variants
    return {"QUERIES": queries, "GROUP": group, "ROWS": max(16, few), "FEW": few, "DIM": dim,
            "WIDE": wide, "BLOCK": config.block, "SHIFT": block_size.bit_length() - 1,
            "WINDOWED": windowed, "TICKET": config.ticket, "STAGES": config.stages,
            "PRECISION": "ieee" if dtype is torch.float32 else "tf32",
            "PIECES": held, "num_warps": config.warps,
            "CHUNK": min(held, max(1, 2048 * config.warps // (few * wide)))}


@functools.cache
def chosen(dim: int, dtype: torch.dtype, group: int, device: torch.device) -> Config:
    """The configuration for a shape on a device: tuned, or the default."""
    wide = power_of_two(max(dim, 16))
    tuned = tune.best("decode.attention", shape_class(dim, dtype, group), tune.architecture(device))
    return Config(**tuned) if tuned else default(wide, dtype.itemsize)


def shape_class(dim: int, dtype: torch.dtype, group: int) -> str:
    """The name of a class of shapes in the table of tuned configurations."""
    rows = "few" if group <= 2 else "many"
    return f"d{power_of_two(max(dim, 16))} {8 * dtype.itemsize} bit {rows} heads"


_tickets: dict[torch.device, Tensor] = {}
TICKETS = 1 << 16  # requests times KV heads of one call at most


def tickets(device: torch.device) -> Tensor:
    """Counters, one for each KV head of each request: zero before and after every launch."""
    found = _tickets.get(device)
    if found is None:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("decode.attention is captured before it ever ran: call it once "
                               "outside of the graph first.")
        found = _tickets[device] = torch.zeros(TICKETS, dtype=torch.int32, device=device)
    return found


def splits_for(requests: int, kv_heads: int, max_context: int,
               device: torch.device | str = "cuda") -> int:
    """How many pieces to cut the longest context into, so that all of a GPU's parts have work.

    Decided once, when a graph is captured: the kernel cuts each context by its own length.
    """
    programs = max(1, requests * kv_heads)
    fill = 4 * processors(torch.device(device)) // programs  # all resident at once: four each
    fair = min(-(-max_context // 2048), 4096 // programs)  # one long context among short ones
    return max(1, min(-(-max_context // 256), max(fill, fair), 64))


def piece_of(programs: int) -> int:
    """Keys a piece has at least: where many programs run side by side, cutting gains little."""
    return min(max(256, 8 * power_of_two(programs)), 2048)


@functools.cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; a CPU counts as a few."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def attention(q: Tensor, k: Tensor, v: Tensor, block_tables: Tensor, contexts: Tensor,
              block_size: int, scale: float, window: int | None = None, *, queries: int = 1,
              splits: int = 1, out: Tensor | None = None, deterministic: bool = False,
              config: Config | None = None) -> Tensor:
    """Attention of the last `queries` tokens of every request over its paged context.

    q: [requests * queries, heads, dim], row r * queries + i at position contexts[r] - queries + i;
    k, v: one layer of the cache, [slots, kv_heads, dim]; block_tables: [requests, width];
    contexts: [requests], 0 for a padded row, whose result is 0. Returns [rows, heads, dim].
    splits: pieces of the context at most. deterministic: the pieces depend on the request's own
    context alone, so that a row's bits are the same in any batch and for any `splits`.
    """
    requests, (rows, heads, dim), kv_heads = contexts.shape[0], q.shape, k.shape[1]
    if rows != requests * queries:
        raise ParameterError(f"q has {rows} rows; {requests} requests of {queries} queries have "
                             f"{requests * queries}.")
    if out is None:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if not rows:
        return out
    if requests * kv_heads > TICKETS:
        raise ParameterError(f"{requests} requests of {kv_heads} KV heads are more than "
                             f"{TICKETS}: call in parts.")
    group = heads // kv_heads
    config = config or chosen(dim, q.dtype, group, q.device)
    most = FIXED_PIECES if deterministic else splits
    least = FIXED_LENGTH if deterministic else config.least or piece_of(requests * kv_heads)
    built = constants(dim, q.dtype, group, queries, block_size, window is not None, most, config)
    if most > 1:
        partial = torch.empty(requests * kv_heads * most * queries * group * (dim + 1),
                              dtype=torch.float32, device=q.device)
        sums = partial[requests * kv_heads * most * queries * group * dim :]
    else:
        partial = sums = q  # never touched
    decode_attention[(kv_heads, min(splits, most), requests)](
        q, k, v, block_tables, contexts, out, partial, sums, tickets(q.device), q.stride(0),
        q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), out.stride(0),
        out.stride(1), block_tables.stride(0), scale * LOG2E, window or 0, most, least, **built,
        **overlap.options(q.device))
    if most > 1 and not config.ticket:
        again = {name: built[name] for name in COMBINE}
        decode_combine[(kv_heads, requests)](contexts, out, partial, sums, out.stride(0),
                                             out.stride(1), window or 0, most, least, **again)
    return out


COMBINE = ("QUERIES", "GROUP", "FEW", "DIM", "WIDE", "BLOCK", "WINDOWED", "PIECES",
           "CHUNK", "num_warps")


def tunables() -> list[tune.Tunable]:
    """What `infero tune` may try."""
    from infero.kernels import attention_tuning

    return attention_tuning.decoding()


# ---------------------------------------------------------------- for the compile test


def example(dim: int = 128, group: int = 4, dtype: str = "bf16", pieces: int = 8,
            config: Config | None = None, queries: int = 1, windowed: bool = False,
            least: tuple[int, int] = (8, 0)) -> Example:
    """A call of the kernel for `infero.kernels.examples`."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    config = config or default(power_of_two(max(dim, 16)), kind.itemsize)
    built = constants(dim, kind, group, queries, 16, windowed, pieces, config)
    numbers = ("q_row", "q_head", "k_slot", "k_head", "v_slot", "v_head", "o_row", "o_head")
    signature = dict.fromkeys(("q", "k", "v"), "*" + dtype)
    signature |= {"tables": "*i32", "contexts": "*i32", "out": "*" + dtype, "partial": "*fp32",
                  "sums": "*fp32", "tickets": "*i32"}
    signature |= dict.fromkeys((*numbers, "t_row", "window", "most", "least"), "i32")
    signature["scale"] = "fp32"
    constexprs = {name: value for name, value in built.items() if name != "num_warps"}
    constexprs["PDL"] = least >= (9, 0)
    signature |= dict.fromkeys(constexprs, "constexpr")
    return Example(decode_attention, signature, constexprs, num_warps=config.warps, least=least,
                   aligned=numbers)


def examples() -> list[Example]:
    """Typical calls, compiled by the tests for GPUs that are not here."""
    numbers = ("o_row", "o_head", "window", "most", "least")
    built = constants(128, torch.bfloat16, 4, 1, 16, False, 8, Config(ticket=False))
    constexprs = {name: built[name] for name in COMBINE if name != "num_warps"}
    signature = {"contexts": "*i32", "out": "*bf16", "partial": "*fp32", "sums": "*fp32"}
    signature |= dict.fromkeys(numbers, "i32") | dict.fromkeys(constexprs, "constexpr")
    return [example(), example(least=(9, 0)), example(80, 1, "fp32", 1, least=(7, 5)),
            example(64, 3, "fp16", 4, windowed=True),
            example(256, 2, "bf16", 2, queries=4),
            Example(decode_combine, signature, constexprs, least=(8, 0), aligned=numbers[:2])]
