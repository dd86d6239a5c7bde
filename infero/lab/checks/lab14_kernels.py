"""What Lab 14 demands of its three kernels, and the mistakes it knows by name.

`infero.lab.kernels` runs them watched and names what only kernels can do wrong; values are judged
here. Slots of the cache that hold no token are noise or NaN. Sizes are those of a few small tiles,
because without a GPU the kernels are interpreted. Chapter 14 explains the pieces.
"""

from __future__ import annotations

import math
import random
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from infero.kernels.language import INTERPRETED
from infero.kernels.steps.attention import KEYS, tile_sizes
from infero.kernels.steps.attention_io import counted, flash_traffic
from infero.lab import kernels
from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab14_oracle import (
    NOTHING,
    Causal,
    Loop,
    causal,
    pair,
    parts_of,
    split_of,
    total_of,
)


def rand(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=g).to(dtype)


# ---------------------------------------------------------------- 3: flash


def flash(c: Check) -> None:
    """One tile and several, tails in both directions, a prefix, grouped heads, half precision."""
    big = 1 if KEYS == 16 else 8  # on a GPU tiles are larger
    g = c.generator(c.seeds(1)[0])
    _judge_flash(c, g, 20 * big, 37 * big, 4, 2, 16, 0.5)
    for queries, heads, dim in ((5, 2, 16), (33, 1, 24)):
        _judge_flash(c, g, queries * big, queries * big, heads, 1, dim, 0.5)
    _judge_flash(c, g, 18 * big, 20 * big, 2, 2, 16, 0.4, torch.float16)


def _judge_flash(c: Check, g: torch.Generator, queries: int, context: int, heads: int,
                 kv_heads: int, dim: int, scale: float, dtype: torch.dtype = torch.float32) -> None:
    q = rand(g, queries, heads, dim, dtype=dtype)
    k, v = (rand(g, context, kv_heads, dim, dtype=dtype) for _ in range(2))
    rows, keys, _ = tile_sizes(q)
    told = f"{queries} queries over {context} keys, tiles of {rows} queries and {keys} keys"
    with counted() if INTERPRETED else nullcontext() as moved:
        got = kernels.call(c, q, k, v, scale)
    want = causal(q, k, v, scale, rows, keys)

    def wrong(words: str, loop: Loop | None = None, **how: Any) -> tuple[str, Any]:
        how = {**how, **({"loop": loop} if loop else {})}
        return words, lambda: causal(q, k, v, scale, rows, keys, Causal(**how))

    known = {
        "no-mask": wrong("There is no causal mask: queries see later keys.", mask=False),
        "mask-top-left": wrong("The mask takes the queries for the first positions of the context; "
                               "they are the last ones: compare keys with `positions`, not with "
                               "`rows`.", offset=0),
        "mask-strict": wrong("A query does not see its own position; it should: key <= position.",
                             strict=True),
        "stale-max": wrong("Only the last tile of keys counts: m keeps its -inf, so the factor "
                           "exp(m - new_m) is 0 each time. End the loop with m = new_m.",
                           Loop(renew=False)),
        "no-rescale": wrong("Neither acc nor total is rescaled when the maximum grows: multiply "
                            "both by exp(m - new_m) before you add a tile.",
                            Loop(rescale_acc=False, rescale_total=False)),
        "acc-not-rescaled": wrong("acc is not rescaled when the maximum grows: multiply it by "
                                  "exp(m - new_m) before you add a tile.", Loop(rescale_acc=False)),
        "sum-not-rescaled": wrong("total is not rescaled when the maximum grows: multiply it by "
                                  "exp(m - new_m) before you add a tile.",
                                  Loop(rescale_total=False)),
        "not-divided": wrong("acc is never divided by total.", Loop(divide=False)),
        "mask-after-softmax": wrong("Hidden keys are taken out of the weights but not out of the "
                                    "sum: mask the scores, before the maximum is taken.",
                                    Loop(mask_after=True)),
        "no-scale": wrong("The scores are not multiplied by scale.", scale=1.0),
        "scale-twice": wrong("The scores are multiplied by scale twice.", scale=scale**2),
        "exp2": wrong("You take powers of 2; with exp2 the scores must be multiplied by log2(e).",
                      Loop(exp=torch.exp2)),
        "tile-missing": wrong("The loop ends one tile of keys too early.", short=1),
        "first-tile-missing": wrong("The loop leaves out the first tile of keys.",
                                    Loop(skip_first=1)),
        "heads-interleaved": wrong("Query head h reads KV head h % kv_heads; neighbours share one: "
                                   "h // group.", interleaved=True),
        "first-kv-head": wrong("Every query head reads KV head 0; head h reads h // group.",
                               first_head=True),
    }
    tolerance = 3e-5 if dtype == torch.float32 else 4e-3
    try:
        c.expect_close(got, want.to(dtype), axes=("query", "head", "feature"), atol=tolerance,
                       rtol=tolerance, known=known, what=f"the result for {told}")
    except Mistake as mistake:
        if isinstance(got, Tensor) and got.shape == want.shape:
            mistake.details += _tiles(got, want, rows, keys, context - queries)
        if mistake.key == "nan" and isinstance(got, Tensor):
            _name_nan(mistake, got, context - queries)
        raise
    if moved is not None and dtype == torch.float32:
        least = heads * flash_traffic(queries, context, dim, rows, keys, 4).read
        c.expect(moved.read <= 1.05 * least, "no-skip",
                 f"The result is right, but the kernel loads {moved.read:,} bytes where "
                 f"{least:,} suffice ({told}): it loads tiles of keys that lie behind the last "
                 "query of its own tile, and hides all of them. End the loop where the last query "
                 "of the tile stands.")


def _tiles(got: Tensor, want: Tensor, rows: int, keys: int, before: int) -> list[str]:
    """Which tile of queries goes wrong first, and how many tiles of keys it sees."""
    bad = ~torch.isclose(got.double(), want, atol=4e-3, rtol=4e-3)
    per_query = bad.flatten(1).any(1)
    if not bool(per_query.any()):
        return []
    query = int(per_query.nonzero()[0])
    tile, seen = query // rows, -(-(before + query + 1) // keys)
    right = [i for i in range(-(-len(per_query) // rows))
             if not bool(per_query[i * rows : (i + 1) * rows].any())]
    some = f"; tiles {', '.join(map(str, right))} of queries are right" if right else ""
    return [f"The first query that is wrong is {query}, in tile {tile} of queries. It sees "
            f"{before + query + 1} keys in {seen} {'tile' if seen == 1 else 'tiles'}{some}."]


def _name_nan(mistake: Mistake, got: Tensor, before: int) -> None:
    """A NaN everywhere, in the first query, or only where memory beyond the end is read."""
    nan = got.isnan().flatten(1).any(1)
    if bool(nan.all()):
        mistake.key = "nan-everywhere"
        mistake.words += (" It is NaN for every query, as it becomes when exp is taken of s - m "
                          "with the old m, which is -inf at first: subtract new_m. So it does when "
                          "the factor is upside down; it is exp(m - new_m).")
    elif bool(nan[0]) and before == 0 and int(nan.sum()) == 1:
        mistake.key = "mask-strict"
        mistake.words += (" Only the first query is: it has no key but its own, so the mask must "
                          "let a query see its own position.")


# ---------------------------------------------------------------- 4: paged_decode


class Cache:
    """Requests in a paged cache: blocks in random order, noise or NaN where no token lies."""

    def __init__(self, g: torch.Generator, contexts: list[int], kv_heads: int, dim: int,
                 size: int, dtype: torch.dtype = torch.float32, noise: bool = True) -> None:
        counts = [-(-n // size) for n in contexts]
        order = (1 + torch.randperm(sum(counts) + 4, generator=g)).tolist()  # block 0 is empty
        slots = (len(order) + 1) * size
        self.contexts, self.size = contexts, size
        self.k, self.v = (torch.randn(slots, kv_heads, dim, generator=g).to(dtype)
                          if noise else torch.full((slots, kv_heads, dim), math.nan, dtype=dtype)
                          for _ in range(2))
        spare = order[-1]  # entries of the table beyond a request's blocks lead to an empty one
        table = torch.full((len(contexts), max(*counts, 1) + 2), spare)
        for r, (n, count) in enumerate(zip(contexts, counts, strict=True)):
            blocks, order = order[:count], order[count:]
            table[r, :count] = torch.tensor(blocks, dtype=torch.long)
            at = [blocks[p // size] * size + p % size for p in range(n)]
            for t in (self.k, self.v):
                t[at] = torch.randn(n, kv_heads, dim, generator=g).to(dtype)
        self.table = table.int()
        self.lens = torch.tensor(contexts, dtype=torch.int32)
        self.blocks = table.tolist()

    def slot(self, r: int, p: int) -> int:
        return int(self.blocks[r][p // self.size] * self.size + p % self.size)


def paged_decode(c: Check) -> None:
    """Contexts of one token, of several tiles, of none; blocks that no tile is a multiple of."""
    big = KEYS // 16
    seed = c.seeds(1)[0]
    g, draw = c.generator(seed), random.Random(seed)
    for contexts, heads, kv_heads, dim, size, splits, noise in [
        ([35, 1], 4, 2, 16, 4, 1, True), ([50, 7], 3, 1, 24, 16, 3, True),
        ([33, 18 + draw.randrange(5), 0], 2, 1, 16, 2, 2, False),
    ]:
        cache = Cache(g, [n * big for n in contexts], kv_heads, dim, size, noise=noise)
        _judge_paged(c, rand(g, len(contexts), heads, dim), cache, 0.5, splits)
    half = Cache(g, [30 * big, 3], 1, 16, 8, torch.float16)
    _judge_paged(c, rand(g, 2, 2, 16, dtype=torch.float16), half, 0.5, 2)


def _judge_paged(c: Check, q: Tensor, cache: Cache, scale: float, splits: int) -> None:
    contexts, size, tile = cache.contexts, cache.size, tile_sizes(q)[1]
    told = f"contexts {contexts}, blocks of {size}, {splits} splits, tiles of {tile} keys"
    given = (q, cache.k, cache.v, cache.table, cache.lens, size, scale, splits)
    got, got_lse = pair(kernels.call(c, *given), "(out, lse)")

    def parts(slots: Any = cache.slot, **change: Any) -> tuple[Tensor, Tensor]:
        with_these = {"contexts": contexts, "scale": scale, **change}
        return parts_of(q, cache.k, cache.v, slots, splits=splits, keys=tile, **with_these)

    want, want_lse = parts()
    axes = ("request", "head", "split", "feature")
    slots, blocks = len(cache.k), cache.blocks
    known: dict[str, tuple[str, Any]] = {
        "table-ignored": ("The block table is not used: positions are taken for slots.",
                          lambda: parts(lambda r, p: p % slots)[0]),
        "first-table": ("Every request reads the table of request 0: row r of block_tables begins "
                        "at r * table_width.",
                        lambda: parts(lambda r, p: cache.slot(0, p))[0]),
        "first-block-only": ("Only the first block is looked up, and the others are taken to "
                             "follow it. Look up the block of every position.",
                             lambda: parts(lambda r, p: (blocks[r][0] * size + p) % slots)[0]),
        "off-by-one-page": ("The block of every position is looked up one entry too far: "
                            "position p lies in entry p // block_size.",
                            lambda: parts(lambda r, p: blocks[r][p // size + 1] * size
                                          + p % size)[0]),
        "block-not-slot": ("Block b begins at slot b * block_size, not at slot b.",
                           lambda: parts(lambda r, p: blocks[r][p // size] + p % size)[0]),
        "no-scale": ("The scores are not multiplied by scale.", lambda: parts(scale=1.0)[0]),
        "not-divided": ("A part is not divided by its sum: out is the mean of the values, and what "
                        "the part weighs is said by lse.",
                        lambda: parts(how=Loop(divide=False))[0]),
        "stale-max": ("Only the last tile of each split counts: end the loop with m = new_m.",
                      lambda: parts(how=Loop(renew=False))[0]),
        "acc-not-rescaled": ("acc is not rescaled when the maximum grows.",
                             lambda: parts(how=Loop(rescale_acc=False))[0]),
        "sum-not-rescaled": ("total is not rescaled when the maximum grows.",
                             lambda: parts(how=Loop(rescale_total=False))[0]),
        "no-rescale": ("Neither acc nor total is rescaled when the maximum grows.",
                       lambda: parts(how=Loop(rescale_acc=False, rescale_total=False))[0]),
        "heads-interleaved": ("Query head h reads KV head h % kv_heads; neighbours share one.",
                              lambda: parts(interleaved=True)[0]),
        "one-token-short": ("The newest token is left out: position context - 1 counts too.",
                            lambda: parts(contexts=[max(n - 1, 0) for n in contexts])[0]),
        "every-split-everything": (
            "Every split covers the whole context; each has a part of its own.",
            lambda: parts(where=lambda r, s: range(contexts[r]))[0]),
        "reads-past-end": ("Positions beyond the split's end count too: the last tile must hide "
                           "them, with the score -inf.",
                           lambda: parts(where=lambda r, s: range(
                               split_of(contexts[r], splits, s, tile).start,
                               min(len(blocks[r]) * size, -(-split_of(
                                   contexts[r], splits, s, tile).stop // tile) * tile)))[0]),
        "padding-counts": ("Positions beyond the split count as keys of score 0: give them the "
                           "score -inf.",
                           lambda: _padded(parts, contexts, splits, want_lse, tile)[0]),
    }
    bad = got.isnan() if isinstance(got, Tensor) and got.shape == want.shape else None
    if bad is not None and bool(bad.any()):
        _name_paged_nan(bad, contexts, splits, told, tile)
    try:
        c.expect_close(got, want.float(), axes=axes, known=known, what=f"out ({told})",
                       **_tolerance(q))
    except Mistake as mistake:
        if mistake.key == "wrong-values":
            _right_in_all(mistake, got, got_lse, want, want_lse)
        raise
    _judge_lse(c, got_lse, want_lse, told, q)


def _judge_lse(c: Check, got: Tensor, want: Tensor, told: str, q: Tensor) -> None:
    empty = want == NOTHING
    if got.shape == want.shape:
        c.expect(bool((got[empty] == NOTHING).all()), "empty-lse",
                 f"A split that has seen nothing must say so: lse -inf, and not "
                 f"{float(got[empty][0]) if bool(empty.any()) else 0:.4g} ({told}). `combine` "
                 "gives it the weight exp(lse).")
    filled = want.masked_fill(empty, 0.0)
    c.expect_close(got, want.float(), axes=("request", "head", "split"), what=f"lse ({told})",
                   **_tolerance(q), known={
        "log2": ("lse is a logarithm to base 2; `combine` takes the natural one.",
                 (filled / math.log(2)).masked_fill(empty, NOTHING)),
    })


def _tolerance(q: Tensor) -> dict[str, float]:
    tolerance = 3e-5 if q.dtype == torch.float32 else 4e-3
    return {"atol": tolerance, "rtol": tolerance}


def _padded(parts: Any, contexts: list[int], splits: int, lse: Tensor, tile: int
            ) -> tuple[Tensor, Tensor]:
    """As if the empty places of the last tile were keys and values of 0."""
    out = parts()[0].clone()
    for r, context in enumerate(contexts):
        for split in range(splits):
            span = split_of(context, splits, split, tile)
            extra = -len(span) % tile
            weight = lse[r, :, split].exp()
            out[r, :, split] *= (weight / (weight + extra))[:, None] if len(span) else 1.0
    return out, lse


def _name_paged_nan(bad: Tensor, contexts: list[int], splits: int, told: str, tile: int) -> None:
    """Which split gives NaN: an empty one, the last tile, or all."""
    r, _, split = (int(i) for i in bad.nonzero()[0][:3])
    empty = [bool(bad[i, :, s].any()) for i in range(len(contexts)) for s in range(splits)
             if len(split_of(contexts[i], splits, s, tile)) == 0]
    others = [bool(bad[i, :, s].any()) for i in range(len(contexts)) for s in range(splits)
              if len(split_of(contexts[i], splits, s, tile)) > 0]
    if any(empty) and not any(others):
        raise Mistake(f"A split that is empty gives NaN ({told}; first: split {split} of request "
                      f"{r}): 0 / 0. Where nothing was seen, out is 0 and lse -inf.", "empty-split")
    if all(others):
        raise Mistake(f"Every split gives NaN ({told}). exp(s - m) with the old m, -inf at first, "
                      "does that: subtract new_m; so does an address that is always wrong.",
                      "nan-everywhere")
    raise Mistake(f"Split {split} of request {r} gives NaN ({told}): a slot that holds no token "
                  "was read. Which block does the position lie in, and is the load masked where "
                  "the position is beyond the split's end?", "reads-beyond")


def _right_in_all(mistake: Mistake, got: Tensor, got_lse: Tensor, want: Tensor,
                  want_lse: Tensor) -> None:
    """Parts that merge to the right result have other borders."""
    if got_lse.shape != want_lse.shape:
        return
    mine, whole = total_of(got, got_lse)[0], total_of(want, want_lse)[0]
    if torch.allclose(mine, whole, atol=1e-3):
        mistake.key = "other-splits"
        mistake.words += (" All splits together are right, their borders are not: split s takes "
                          "the positions from s * part to (s + 1) * part, as the text says.")
        return
    wrong = ~torch.isclose(got.double(), want, atol=4e-3).all(-1)
    r, _, split = (int(i) for i in wrong.nonzero()[0])
    mistake.details.append(f"The first part that is wrong is split {split} of request {r}.")


# ---------------------------------------------------------------- 5: combine


def combine(c: Check) -> None:
    """One split and several, not only powers of two; empty splits; requests without any."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for requests, heads, splits, dim in [(2, 2, 3, 5), (1, 3, 4, 16), (2, 1, 1, 8)]:
            out = rand(g, requests, heads, splits, dim)
            lse = 2 * rand(g, requests, heads, splits) - 3.0
            _judge_combine(c, out, lse, "random parts")
        out, lse = rand(g, 2, 2, 5, 6), rand(g, 2, 2, 5).clone()
        out[0, :, 3:], lse[0, :, 3:] = 0.0, NOTHING
        _judge_combine(c, out, lse, "two of five splits of request 0 empty")
        out[1], lse[1] = 0.0, NOTHING
        _judge_combine(c, out, lse, "request 1 empty")
    out, lse = rand(c.generator(1), 1, 2, 3, 4), rand(c.generator(2), 1, 2, 3) + 500.0
    _judge_combine(c, out, lse, "scores in the hundreds")


def _judge_combine(c: Check, out: Tensor, lse: Tensor, told: str) -> None:
    got, got_lse = pair(kernels.call(c, out, lse), "(out, lse)")
    want, want_lse = total_of(out, lse)
    o, weight = out.double(), (lse.double() - lse.double().amax(-1, keepdim=True)).exp()
    plain = lse.double().exp()[..., None]
    full = torch.zeros_like(want_lse) + 2 ** math.ceil(math.log2(lse.shape[-1])) - lse.shape[-1]
    nothing = want_lse == NOTHING
    nan = got.isnan().any(-1) if got.shape == want.shape else None
    if nan is not None and bool(nan.any()):
        if bool((nan == nothing).all()):
            raise Mistake(f"Where all splits are empty the result is NaN ({told}): -inf minus "
                          "-inf, or 0 / 0. It should be 0 with lse -inf.", "empty-and-empty")
        if not bool(nan.all()) or bool(nothing.any()) or bool((lse == NOTHING).any()):
            raise Mistake(f"An empty split makes the result NaN ({told}). Its weight is exp(-inf) "
                          "= 0.", "empty-part")
    if bool((lse > 100).any()) and not bool(got.isfinite().all()):
        raise Mistake("With scores in the hundreds the result is not finite: exp(lse) overflows. "
                      "Subtract the largest lse first.", "overflow")
    c.expect_close(got, want.float(), axes=("request", "head", "feature"), what=f"out ({told})",
                   known={
        "mean-of-means": ("You take the plain mean of the splits. A split that saw more counts for "
                          "more: its weight is exp(lse).", o.mean(-2)),
        "sum-of-parts": ("You add the splits without weights.", o.sum(-2)),
        "not-normalised": ("The weights do not sum to 1: divide by their sum.",
                           (o * weight[..., None]).sum(-2)),
        "unnormalised": ("You add out * exp(lse) and stop: divide by the sum of exp(lse).",
                         (o * plain).sum(-2)),
        "padding-counts": ("The places that fill the splits up to a power of two count as splits "
                           "with lse 0: load them with other=-inf.",
                           (o * plain).sum(-2) / (plain.sum(-2) + full[..., None])),
        "first-split-only": ("This is split 0 alone.", o[..., 0, :]),
    })
    c.expect(bool((got_lse[nothing] == NOTHING).all()), "empty-lse",
             f"Where all splits are empty lse should be -inf ({told}).")
    top = lse.double().amax(-1)
    c.expect_close(got_lse, want_lse.float(), axes=("request", "head"), what=f"lse ({told})",
                   known={
        "lse-max": ("lse is the largest of the splits'; all together have a little more: "
                    "m + log(sum of exp(lse - m)).", top),
        "lse-without-max": ("You took the logarithm after subtracting the maximum and never added "
                            "it back.", want_lse - top),
        "lse-sum": ("The logarithms are added; that multiplies the sums.", lse.double().sum(-1)),
        "sum-not-log": ("This is the sum of the weights; return m + log(sum).", weight.sum(-1)),
    })
