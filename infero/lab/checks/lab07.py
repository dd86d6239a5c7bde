"""What Lab 7 demands of its five pieces, and the mistakes it knows by name.

The cache is tried with slots that no counter would produce and with noise in every slot, so that a
token in the wrong place, or a neighbour overwritten, shows. Latent attention is compared with keys
and values written out head by head in float64, and its memory is counted while it runs.
`lab07_loop.py` has the check of cached_loop, which is named here too. Chapter 7 explains them.
"""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from infero.cache.kv import KVCache
from infero.errors import PromptError
from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab02 import compare, random_shape
from infero.lab.checks.lab07_loop import cached_loop
from infero.model import Batch

__all__ = ["absorbed_attention", "cached_loop", "kv_bytes_per_token", "next_batch", "write"]

# ---------------------------------------------------------------- 1: write


def noisy_cache(g: torch.Generator, layers: int, slots: int, kv_heads: int, dim: int,
                dtype: torch.dtype = torch.float32, block_size: int = 4) -> KVCache:
    """A cache in which every number is noise: what is overwritten or forgotten shows."""
    shape = (layers, slots, kv_heads, dim)
    return KVCache(torch.randn(shape, generator=g).to(dtype),
                   torch.randn(shape, generator=g).to(dtype), block_size)


def _written(old: Tensor, layer: int, slots: list[int], new: Tensor) -> Tensor:
    """`old` [layers, slots, ...] with row t of `new` in slot slots[t] of one layer."""
    out = old.clone()
    for t, slot in enumerate(slots):
        out[layer, slot] = new[t]
    return out


def write(c: Check) -> None:
    """Scattered, unordered slots of one layer among noise; the tensors must be the old ones."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for layers, total, kv_heads, dim, n, dtype in [
            (3, 12, 2, 4, 5, torch.float32), (4, 9, 3, 2, 1, torch.bfloat16),
            (2, 8, 1, 6, 8, torch.float32), (5, 20, 4, 8, 7, torch.float32),
        ]:
            cache = noisy_cache(g, layers, total, kv_heads, dim, dtype)
            order = torch.randperm(total, generator=g)[:n]
            if n > 1 and bool((order.diff() > 0).all()):
                order = order.flip(0)
            where, layer = order.tolist(), 1 + seed % (layers - 1)
            # as the model hands them over: two parts of one larger tensor, not contiguous
            both = torch.randn(n, 2 * kv_heads, dim, generator=g).to(dtype)
            k, v = both.split(kv_heads, dim=1)
            before, tensors = (cache.k.clone(), cache.v.clone()), (cache.k, cache.v)
            c.call_in_place(cache, layer, order, k, v)
            _judge_write(c, cache, tensors, before, layer, where, k, v)


def _judge_write(c: Check, cache: KVCache, tensors: tuple[Tensor, Tensor],
                 before: tuple[Tensor, Tensor], layer: int, where: list[int], k: Tensor,
                 v: Tensor) -> None:
    told = f"slots {where} of layer {layer}"
    for name, tensor, now in zip("kv", tensors, (cache.k, cache.v), strict=True):
        c.expect(now is tensor, "new-tensor",
                 f"cache.{name} is another tensor than before ({told}). The engine holds on to the "
                 "old one, and copying gigabytes for one token is what a cache must avoid: write "
                 "into it in place.")
    n, total = len(where), len(before[0][0])
    right = [_written(old, layer, where, new)
             for old, new in zip(before, (k, v), strict=True)]
    if torch.equal(cache.k, before[0]) and torch.equal(cache.v, before[1]):
        raise Mistake(
            f"Nothing in the cache has changed ({told}). Indexing with a tensor of slots makes a "
            "copy, and writing into that copy is lost: assign to cache.k[layer, slots] or use "
            "index_copy_.", "writes-into-a-copy")
    straight, row = list(range(n)), where[0]
    run = [min(row + t, total - 1) for t in range(n)]

    def both_of(*new: Tensor) -> list[Tensor]:
        return [_written(o, layer, where, x) for o, x in zip(before, new, strict=True)]

    def everywhere() -> list[Tensor]:
        out = [old.clone() for old in before]
        for tensor, new in zip(out, (k, v), strict=True):
            tensor[:, where] = new
        return out

    def at(layer_: int, slots: list[int]) -> list[Tensor]:
        return [_written(o, layer_, slots, x) for o, x in zip(before, (k, v), strict=True)]

    def added() -> list[Tensor]:
        out = [old.clone() for old in before]
        for tensor, new in zip(out, (k, v), strict=True):
            tensor[layer, where] += new
        return out

    def cleared() -> list[Tensor]:
        out = [old.clone() for old in before]
        for tensor, new in zip(out, (k, v), strict=True):
            tensor[layer] = 0
            tensor[layer, where] = new
        return out

    for key, words, wrong in [
        ("swapped", "keys and values have changed places", both_of(v, k)),
        ("keys-twice", "the keys are stored as values too", both_of(k, k)),
        ("values-twice", "the values are stored as keys too", both_of(v, v)),
        ("no-values", "the values are not stored", [right[0], before[1]]),
        ("no-keys", "the keys are not stored", [before[0], right[1]]),
        ("first-layer", "you write to layer 0 whatever `layer` says", at(0, where)),
        ("every-layer", "every layer gets these keys and values; write to `layer` alone",
         everywhere()),
        ("slots-ignored", "the tokens lie in slots 0, 1, 2, … instead of those that `slots` names",
         at(layer, straight)),
        ("slots-as-a-run", "only the first slot is used and the tokens follow it in a row; the "
         "slots of a step need not be neighbours", at(layer, run)),
        ("slots-sorted", "the slots are used in rising order; token t belongs to slots[t]",
         at(layer, sorted(where))),
        ("added", "you add to what the slot held before; a slot is overwritten", added()),
        ("clears-the-rest", "other slots of the layer are set to zero: they hold other tokens",
         cleared()),
    ]:
        differs = not all(torch.equal(a, b) for a, b in zip(wrong, right, strict=True))
        if differs and torch.equal(cache.k, wrong[0]) and torch.equal(cache.v, wrong[1]):
            raise Mistake(f"{words[:1].upper()}{words[1:]} ({told}).", key)
    for name, now, want in zip("kv", (cache.k, cache.v), right, strict=True):
        c.expect_equal(now, want, axes=("layer", "slot", "head", "feature"),
                       what=f"cache.{name} after writing {told}")


# ---------------------------------------------------------------- 2: next_batch


def next_batch(c: Check) -> None:
    """Prefill, decode and a mixture, in a cache with room to spare, and the edge of a block."""
    cases = [([0, 3, 6], [4, 1, 2], 9), ([0], [5], 8), ([7], [1], 8), ([2, 0], [1, 6], 6),
             ([0, 0], [3, 3], 7)]
    for seed in c.seeds(2):
        draw = random.Random(seed)
        size = draw.randrange(9, 14)
        lens = [draw.randrange(1, 5) for _ in range(4)]
        mixed = ([draw.randrange(0, size - n) for n in lens], lens, size)
        for starts, query_lens, block_size in [*cases, mixed]:
            blocks = len(starts) + 2
            cache = noisy_cache(c.generator(seed), 1, blocks * block_size, 1, 2,
                                block_size=block_size)
            given = (list(starts), list(query_lens))
            got = c.call(cache, *given)
            c.expect(given == (starts, query_lens), "mutates-input",
                     "The lists that were given have changed: make new ones.")
            _judge_batch(c, got, starts, query_lens, block_size)
    cache = noisy_cache(c.generator(1), 1, 18, 1, 2, block_size=6)
    full = c.call(cache, [5, 0], [1, 6])  # exactly full: allowed
    c.expect(isinstance(full, Batch), "wrong-type", "A request may fill its block to the end.")
    for starts, query_lens in (([6], [1]), ([0, 4], [2, 3])):
        c.expect_raises(
            PromptError, cache, starts, query_lens, key="no-room-check",
            words=(f"A block holds 6 tokens, and with starts {starts} and query_lens {query_lens} "
                   "a request would reach into its neighbour's block: raise PromptError."))


def _judge_batch(c: Check, got: Any, starts: list[int], query_lens: list[int],
                 size: int) -> None:
    told = f"starts {starts}, query_lens {query_lens}, blocks of {size}"
    c.expect(got is not None, "returns-none", "The result is None: does your function return?")
    c.expect(isinstance(got, Batch), "wrong-type",
             f"The result should be a Batch; you gave {type(got).__name__}.")
    where = [range(s, s + n) for s, n in zip(starts, query_lens, strict=True)]
    positions = [p for r in where for p in r]
    owner = [r for r, n in enumerate(query_lens) for _ in range(n)]
    inside = [t for n in query_lens for t in range(n)]
    ends = [s + n for s, n in zip(starts, query_lens, strict=True)]

    def ints(values: list[int]) -> Tensor:
        return torch.tensor(values)

    c.expect_equal(got.positions, ints(positions), axes=("token",), what=f"positions ({told})",
                   known={
        "positions-from-zero": ("Positions count from 0 for every request; they go on where the "
                                f"request stands ({told}).", ints(inside)),
        "positions-across-requests": ("Positions count through the whole step; each request has "
                                      f"its own ({told}).", torch.arange(len(positions))),
        "positions-from-one": (f"Every position is one too large ({told}).",
                               ints([p + 1 for p in positions])),
    })
    c.expect_equal(got.slots, ints([o * size + p for o, p in zip(owner, positions, strict=True)]),
                   axes=("token",), what=f"slots ({told})", known={
        "slots-are-positions": ("The slots are the positions: all requests write into block 0. "
                                f"Request r owns the slots from r * block_size on ({told}).",
                                ints(positions)),
        "slots-from-zero": ("The slots forget where a request stands: a new token overwrites an "
                            f"old one ({told}).",
                            ints([o * size + t for o, t in zip(owner, inside, strict=True)])),
        "slots-packed": ("The slots follow each other without regard to blocks: request r's block "
                         f"begins at r * block_size ({told}).", torch.arange(len(positions))),
    })
    c.expect_equal(got.block_tables, torch.arange(len(starts))[:, None],
                   axes=("request", "block"), what=f"block_tables ({told})")
    c.expect(got.block_size == size, "wrong-block-size",
             f"block_size is {got.block_size}; the cache's is {size}.")
    c.expect_equal(list(got.query_lens), query_lens, axes=("request",), what="query_lens")
    c.expect_equal(list(got.context_lens), ends, axes=("request",), what=f"context_lens ({told})",
                   known={
        "context-before": ("context_lens counts what is in the cache before the step; attention "
                           f"needs it with the new tokens ({told}).", starts),
        "context-is-query": (f"context_lens counts the new tokens only ({told}).", query_lens),
        "context-is-block": (f"context_lens is the room, not what is in it ({told}).",
                             [size] * len(starts)),
    })


# ---------------------------------------------------------------- 4: kv_bytes_per_token


def kv_bytes_per_token(c: Check) -> None:
    """Vectors counted one by one on shapes without coincidences, at several widths."""
    for i, seed in enumerate(c.seeds(5)):
        draw = random.Random(seed)
        s = random_shape(draw, tied=i % 2 == 0)
        for width in (3, 2, 4, 1):  # at 3 bytes no two known mistakes coincide
            one = s.head_dim * width  # bytes of one vector
            want = sum(one for _ in range(s.num_layers) for _ in "kv"
                       for _ in range(s.num_kv_heads))
            got = c.call(s, width)
            compare(c, got, want, {
                "query-heads": ("You count num_heads; keys and values have num_kv_heads, and that "
                                "is what grouped heads are for",
                                want * s.num_heads // s.num_kv_heads),
                "keys-only": ("A key and a value are kept, so there are two vectors", want / 2),
                "one-layer": ("This is one layer; every layer keeps its own", want / s.num_layers),
                "no-head-dim": ("You count vectors, not their numbers: head_dim is missing",
                                want / s.head_dim),
                "elements-not-bytes": ("You count numbers and not bytes", want / width),
                "fixed-width": ("The width of a number is fixed at 2 bytes; use bytes_per_element",
                                want * 2 / width),
                "bits-not-bytes": ("bytes_per_element is in bytes already", want / 8),
                "hidden-size": ("A layer's keys are as wide as the hidden state only where every "
                                "query head has its own; here num_kv_heads * head_dim",
                                2 * s.num_layers * s.hidden_size * width),
                "kib": ("Bytes are asked for, not KiB", want / 1024),
            }, what=f"the size of a token at {width} bytes a number")
            c.expect(isinstance(got, int), "wrong-type",
                     f"{got!r} is a {type(got).__name__}; memory comes in whole bytes (int).")
        compare(c, c.call(s), c.call(s, 2), {}, what="the size without bytes_per_element")


# ---------------------------------------------------------------- 5: absorbed_attention


class Largest(TorchFunctionMode):
    """Notes the largest tensor that any operation makes."""

    elements = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, Tensor):  # by storage: a view that only looks large costs nothing
                self.elements = max(self.elements, t.untyped_storage().nbytes() // t.itemsize)
        return out


def _latent(given: list[Tensor], scale: float, *, content: bool = True, position: bool = True,
            mask: bool = True, offset: int | None = None,
            own_scale: float | None = None) -> Tensor:
    """Every head's keys and values written out, in float64; the keywords leave something out."""
    q, q_rope, latent, k_rope, w_uk, w_uv = given
    queries, heads, _ = q.shape
    context = len(latent)
    i = torch.arange(queries)[:, None] + (context - queries if offset is None else offset)
    hidden = torch.arange(context)[None, :] > i
    out = []
    for h in range(heads):
        keys, values = latent.double() @ w_uk[h].double().T, latent.double() @ w_uv[h].double().T
        scores = torch.zeros(queries, context, dtype=torch.float64)
        if content:
            scores += q[:, h].double() @ keys.T
        if position:
            scores += q_rope[:, h].double() @ k_rope.double().T
        scores = scores * (scale if own_scale is None else own_scale)
        if mask:
            scores = scores.masked_fill(hidden, -math.inf)
        out.append(scores.softmax(-1) @ values)
    return torch.stack(out, dim=1)


def absorbed_attention(c: Check) -> None:
    """Small random sizes without coincidences against the expanded form; then a long context."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for queries, context, heads, dim, rope, v_dim, rank in [
            (1, 1, 2, 3, 2, 5, 4), (1, 9, 3, 4, 2, 6, 7), (4, 7, 2, 5, 4, 3, 6),
            (5, 5, 4, 2, 6, 7, 3),
        ]:
            shapes = [(queries, heads, dim), (queries, heads, rope), (context, rank),
                      (context, rope), (heads, dim, rank), (heads, v_dim, rank)]
            given = [torch.randn(s, generator=g) for s in shapes]
            scale = 0.2 + float(torch.rand(1, generator=g))

            def wrong(words: str, given: list[Tensor] = given, scale: float = scale,
                      **change: Any) -> tuple[str, Any]:
                return words, lambda: _latent(given, scale, **change)

            known = {
                "no-rope": wrong("The rotary part of the scores is missing: q_rope · k_rope.",
                                 position=False),
                "no-content": wrong("Only the rotary part of the scores is there; the content, "
                                    "q · key, is missing.", content=False),
                "no-mask": wrong("There is no causal mask: a query sees later positions. "
                                 "`causal_softmax` hides them.", mask=False),
                "mask-top-left": wrong("The mask treats the queries as the first positions of the "
                                       "context; they are the last ones.", offset=0),
                "missing-scale": wrong("The scores are not multiplied by scale.", own_scale=1.0),
                "own-scale": wrong("You scale by a size of your own; use the scale that is given.",
                                   own_scale=rank**-0.5),
                "own-scale-dim": wrong("You scale by 1/sqrt(dim); use the scale that is given, "
                                       "which counts the rotary features too.",
                                       own_scale=dim**-0.5),
                "scaled-in-part": ("Only a part of the scores is multiplied by scale; both are.",
                                   partial(_latent, [given[0] * scale, *given[1:]], 1.0)),
                "rope-scaled-in-part": ("Only the rotary part of the scores is multiplied by "
                                        "scale; both are.",
                                        partial(_latent, [given[0], given[1] * scale, *given[2:]],
                                                1.0)),
            }
            got = c.call(*given, scale)
            c.expect_close(got, _latent(given, scale), axes=("query", "head", "feature"),
                           atol=2e-5, rtol=2e-4, dtype=torch.float32, known=known)
        narrow = [t.bfloat16() for t in given]
        c.expect_close(c.call(*narrow, 0.3), _latent(narrow, 0.3).bfloat16(),
                       axes=("query", "head", "feature"), atol=0.08, rtol=0.05)
    _small_memory(c)


def _small_memory(c: Check) -> None:
    """One query over a long context: nothing as large as all heads' keys may come into being."""
    queries, context, heads, dim, rope, v_dim, rank = 1, 301, 8, 16, 4, 16, 24
    g = c.generator(5)
    given = [torch.randn(s, generator=g) for s in
             [(queries, heads, dim), (queries, heads, rope), (context, rank), (context, rope),
              (heads, dim, rank), (heads, v_dim, rank)]]
    with Largest() as seen:
        c.call(*given, 0.2)
    limit = context * (rank + rope)  # the cache itself
    c.expect(seen.elements <= limit, "expands-the-cache",
             f"With {context} tokens in the cache your largest tensor has {seen.elements:,} "
             f"numbers; the whole cache has {limit:,}. That is the expanded form: every head's "
             "keys or values are made for the whole context. Move w_uk to the query and w_uv to "
             "the result, so that nothing has context, heads and dim together.")
