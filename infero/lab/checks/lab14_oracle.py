"""Attention written out in float64 for Lab 14's checks, right and wrong in every known way.

`tiled` walks through tiles of keys as a learner's loop does, so that a mistake of the loop (a
maximum that is not renewed, an accumulator that is not rescaled) gives here what it gives there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infero.lab.checking import Mistake

NOTHING = -math.inf


@dataclass(frozen=True)
class Loop:
    """How one goes through the tiles; the defaults are right."""

    rescale_acc: bool = True
    rescale_total: bool = True
    renew: bool = True  # m = new_m
    running: bool = True  # the maximum with what was before
    divide: bool = True
    each: bool = False  # normalised in every tile and added up
    exp: Callable[[Tensor], Tensor] = torch.exp
    scale: float = 1.0  # times the scale that is given
    skip_first: int = 0  # tiles
    skip_last: int = 0
    mask_after: bool = False  # hidden weights set to 0 after they were added to the sum


def tiled(s: Tensor, v: Tensor, size: int, how: Loop, hidden: Tensor | None = None
          ) -> tuple[Tensor, Tensor, Tensor]:
    """Scores s [rows, keys] over values v [keys, dim]: (out, maximum, sum), all float64."""
    s, v = s.double() * how.scale, v.double()
    rows = len(s)
    m = torch.full((rows,), NOTHING, dtype=torch.float64)
    total = torch.zeros_like(m)
    acc = torch.zeros(rows, v.shape[1], dtype=torch.float64)
    starts = list(range(0, s.shape[1], size))
    for start in starts[how.skip_first : len(starts) - how.skip_last]:
        tile, values = s[:, start : start + size], v[start : start + size]
        cover = None if hidden is None else hidden[:, start : start + size]
        if cover is not None and not how.mask_after:
            tile = tile.masked_fill(cover, NOTHING)
        new_m = torch.maximum(m, tile.amax(1)) if how.running else tile.amax(1)
        p = how.exp(tile - new_m[:, None])
        shrink = how.exp(m - new_m)
        total = total * (shrink if how.rescale_total else 1.0) + p.sum(1)
        if cover is not None and how.mask_after:
            p = p.masked_fill(cover, 0.0)
        share = p / p.sum(1, keepdim=True) if how.each else p
        acc = acc * (shrink[:, None] if how.rescale_acc and not how.each else 1.0) + share @ values
        if how.renew:
            m = new_m
    return (acc / total[:, None] if how.divide and not how.each else acc), m, total


@dataclass(frozen=True)
class Causal:
    """How queries, keys and heads belong together; the defaults are right."""

    mask: bool = True
    offset: int | None = None  # position of the first query; None: they are the last
    strict: bool = False
    scale: float | None = None
    interleaved: bool = False  # KV head h % kv_heads
    first_head: bool = False
    short: int = 0  # tiles of keys too few for each tile of queries
    loop: Loop = Loop()


def causal(q: Tensor, k: Tensor, v: Tensor, scale: float, rows: int, keys: int,
           how: Causal = Causal()) -> Tensor:
    """q [queries, heads, dim]; k, v [context, kv_heads, dim] -> [queries, heads, dim] float64."""
    (queries, heads, dim), (context, kv_heads, _) = q.shape, k.shape
    out = torch.zeros(queries, heads, dim, dtype=torch.float64)
    first = context - queries if how.offset is None else how.offset
    j = torch.arange(context)[None, :]
    for h in range(heads):
        kv = h % kv_heads if how.interleaved else 0 if how.first_head else h // (heads // kv_heads)
        for low in range(0, queries, rows):
            i = torch.arange(low, min(low + rows, queries))[:, None] + first
            end = context if not how.mask else min(context, max(first + low + rows, 1))
            end = -(-end // keys) * keys - how.short * keys
            if how.short == 0:
                end = min(context, end)
            s = q[low : low + rows, h].double() @ k[:end, kv].double().T
            s = s * (scale if how.scale is None else how.scale)
            hidden = (j >= i if how.strict else j > i)[:, : s.shape[1]] if how.mask else None
            out[low : low + rows, h] = tiled(s, v[:end, kv], keys, how.loop, hidden)[0]
    return out


def split_of(context: int, splits: int, split: int, keys: int) -> range:
    """The positions of one split: whole tiles of keys, as `paged_decode` promises."""
    part = math.ceil(math.ceil(context / splits) / keys) * keys
    return range(min(split * part, context), min((split + 1) * part, context))


def parts_of(q: Tensor, k: Tensor, v: Tensor, slots: Callable[[int, int], int],
             contexts: list[int], scale: float, splits: int, keys: int,
             where: Callable[[int, int], range] | None = None, how: Loop = Loop(),
             interleaved: bool = False) -> tuple[Tensor, Tensor]:
    """Partial results of every request, head and split; `slots(r, p)` is the slot of a position."""
    requests, heads, dim = q.shape
    group = heads // k.shape[1]
    out = torch.zeros(requests, heads, splits, dim, dtype=torch.float64)
    lse = torch.full((requests, heads, splits), NOTHING, dtype=torch.float64)
    for r, context in enumerate(contexts):
        for split in range(splits):
            span = where(r, split) if where else split_of(context, splits, split, keys)
            if len(span) == 0:
                continue
            at = [slots(r, p) for p in span]
            for h in range(heads):
                kv = h % k.shape[1] if interleaved else h // group
                s = q[r, h][None].double() @ k[at, kv].double().T * scale
                mean, m, total = tiled(s, v[at, kv], keys, how)
                out[r, h, split], lse[r, h, split] = mean[0], (m + total.log())[0]
    return out, lse


def total_of(out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Parts [.., splits, dim] and [.., splits] merged in float64: ([.., dim], [..])."""
    out, lse = out.double(), lse.double()
    both = lse.logsumexp(-1)
    weight = (lse - both.where(both > NOTHING, 0.0)[..., None]).exp()
    return (out * weight[..., None]).sum(-2), both


def pair(got: Any, names: str) -> tuple[Tensor, Tensor]:
    """The two tensors that a piece must return."""
    if got is None:
        raise Mistake("The result is None: does your function end in `return`?", "returns-none")
    if (not isinstance(got, tuple) or len(got) != 2
            or not all(isinstance(t, Tensor) for t in got)):
        raise Mistake(f"Return two tensors, {names}; you gave {type(got).__name__}.", "wrong-type")
    return got
