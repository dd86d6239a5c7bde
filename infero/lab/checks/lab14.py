"""What Lab 14 demands of its five pieces, and the mistakes it knows by name.

`merge` and `blockwise`, in PyTorch, are here; the three kernels are in `lab14_kernels.py`, whose
checks are named here too. Every expected value comes from attention written out in float64
(`lab14_oracle.py`). Chapter 14 explains the pieces.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab07 import Largest
from infero.lab.checks.lab14_kernels import combine, flash, paged_decode
from infero.lab.checks.lab14_oracle import NOTHING, Loop, pair, tiled, total_of

__all__ = ["blockwise", "combine", "flash", "merge", "paged_decode"]


# ---------------------------------------------------------------- 1: merge


def merge(c: Check) -> None:
    """Parts of equal and very unequal weight, huge scores, one part empty, both empty."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for rows, dim, size, apart in [(4, 3, 1.0, 1.0), (1, 8, 3.0, 0.0), (6, 5, 2.0, 6.0)]:
            out, more = (torch.randn(rows, dim, generator=g) for _ in range(2))
            lse = torch.randn(rows, generator=g) * size
            more_lse = lse + torch.randn(rows, generator=g) * apart + (apart == 0)
            _judge_merge(c, out, lse, more, more_lse)
    g = c.generator(1)
    out, more = torch.randn(4, 3, generator=g), torch.randn(4, 3, generator=g)
    lse = torch.tensor([300.0, -300.0, 88.5, 1000.0])
    _judge_merge(c, out, lse, more, lse + torch.tensor([1.0, -0.5, 0.2, 300.0]), huge=True)
    for first, second in ((1, 0), (0, 1), (0, 0)):
        _empty(c, g, bool(first), bool(second))


def _judge_merge(c: Check, out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor,
                 huge: bool = False) -> None:
    o, a, p, b = (t.double() for t in (out, lse, more, more_lse))
    want, want_lse = total_of(torch.stack((o, p), 1), torch.stack((a, b), 1))
    top = torch.maximum(a, b)
    wa, wb = ((x - top).exp()[:, None] for x in (a, b))
    got, got_lse = pair(c.call(out, lse, more, more_lse), "(out, lse)")
    if huge and not bool(got.isfinite().all() and got_lse.isfinite().all()):
        raise Mistake("With scores in the hundreds the result is not finite: exp(lse) overflows "
                      "float32 from 89 on. Subtract the larger of the two (or the new lse) before "
                      "you take exponentials.", "overflow")
    c.expect_close(got, want.float(), axes=("row", "feature"), what="out", known={
        "mean-of-means": ("You take the plain mean of the two parts. A part that saw more counts "
                          "for more: its weight is exp(lse).", (o + p) / 2),
        "swapped-weights": ("Each part has the weight of the other.",
                            (o * wb + p * wa) / (wa + wb)),
        "not-normalised": ("The weights do not sum to 1: divide by exp(lse - m) + exp(more_lse - m)"
                           ", or subtract the new lse in place of m.", o * wa + p * wb),
        "unnormalised": ("You add out * exp(lse) and stop. These are sums of weighted values; the "
                         "result is their mean: divide by the sum of the weights.",
                         o * a.exp()[:, None] + p * b.exp()[:, None]),
        "sum-of-parts": ("You add the two parts without weights.", o + p),
        "lse-as-weight": ("lse is a logarithm; the weight of a part is exp(lse).",
                          (o * a[:, None] + p * b[:, None]) / (a + b)[:, None]),
        "keeps-the-larger": ("You keep the part with the larger lse and drop the other.",
                             torch.where((a >= b)[:, None], o, p)),
        "first-part-only": ("This is the first part alone.", o),
    })
    c.expect_close(got_lse, want_lse.float(), axes=("row",), what="lse", known={
        "lse-not-updated": ("lse is still that of the first part; the result stands for both, and "
                            "the next merge will weigh it by its lse.", a),
        "lse-sum": ("You add the two logarithms; that multiplies the sums. log(exp(a) + exp(b)) is "
                    "torch.logaddexp.", a + b),
        "lse-max": ("lse is the larger of the two; the sum of both is a little more: "
                    "log(exp(a) + exp(b)).", top),
        "lse-without-max": ("You took the logarithm after subtracting the maximum, and never added "
                            "it back: m + log(exp(a - m) + exp(b - m)).",
                            want_lse - top),
        "sum-not-log": ("This is the sum of the exponentials; return its logarithm.",
                        a.exp() + b.exp()),
    })


def _empty(c: Check, g: torch.Generator, first: bool, second: bool) -> None:
    """A part that saw nothing: out 0, lse -inf."""
    parts = []
    for there in (first, second):
        out, lse = torch.randn(2, 3, generator=g), torch.randn(2, generator=g)
        parts += [out, lse] if there else [0 * out, torch.full_like(lse, NOTHING)]
    got, got_lse = pair(c.call(*parts), "(out, lse)")
    want, want_lse = (parts[0], parts[1]) if first else (parts[2], parts[3])
    if bool(got.isnan().any() or got_lse.isnan().any()):
        if first or second:
            raise Mistake("One part has seen nothing (lse -inf) and the result is NaN. Its weight "
                          "is exp(-inf) = 0; 0 * inf or a division by 0 must not come before it.",
                          "empty-part")
        raise Mistake("Neither part has seen anything, both lse are -inf, and the result is NaN: "
                      "-inf minus -inf. The result is out 0 with lse -inf. Subtract something "
                      "finite in this case.", "empty-and-empty")
    which = "the second part" if first else "the first part" if second else "both parts"
    c.expect_close(got, want, axes=("row", "feature"), what=f"out with {which} empty")
    c.expect_close(got_lse, want_lse, axes=("row",), what=f"lse with {which} empty")


# ---------------------------------------------------------------- 2: blockwise


def blockwise(c: Check) -> None:
    """Blocks with and without a tail, one block, blocks of one key; scores far apart; memory."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for queries, context, dim, size, scale in [(3, 12, 4, 4, 0.7), (5, 13, 6, 5, 0.4),
                                                   (1, 4, 3, 9, 1.3), (2, 6, 5, 1, 0.9)]:
            q, k, v = (torch.randn(n, dim, generator=g) for n in (queries, context, context))
            _judge_blockwise(c, 2 * q, k, v, scale, size)
    g = c.generator(1)
    q, v = torch.randn(2, 4, generator=g), torch.randn(9, 4, generator=g)
    k = q.sum(0, keepdim=True) * torch.linspace(-1, 1, 9)[:, None] * 90
    for keys in (k, k.flip(0)):  # scores that rise, or fall, by hundreds
        _judge_blockwise(c, q, keys.contiguous(), v, 1.0, 3, far=True)
    q, k, v = (torch.randn(n, 8, generator=g).half() for n in (3, 20, 20))
    _judge_blockwise(c, q, k, v, 2.0, 6)
    _small_memory(c, g)


def _judge_blockwise(c: Check, q: Tensor, k: Tensor, v: Tensor, scale: float, size: int,
                     far: bool = False) -> None:
    s = q.double() @ k.double().T * scale
    got, got_lse = pair(c.call(q, k, v, scale, size), "(out, lse)")
    want, want_lse = s.softmax(-1) @ v.double(), s.logsumexp(-1)
    if not bool(got.isfinite().all() and got_lse.isfinite().all()):
        raise Mistake(_not_finite(far), "overflow" if far else "not-finite",
                      [_where(c, q, k, v, scale, size)])

    def wrong(words: str, how: Loop) -> tuple[str, Any]:
        return words, lambda: tiled(s, v, size, how)[0]

    known = {
        "no-rescale": wrong("Neither the accumulator nor the sum is rescaled when the maximum "
                            "grows: what was added before was measured against the old maximum. "
                            "Multiply both by exp(m - new_m).",
                            Loop(rescale_acc=False, rescale_total=False)),
        "acc-not-rescaled": wrong("The accumulator is not rescaled when the maximum grows: "
                                  "multiply it by exp(m - new_m) before you add a block.",
                                  Loop(rescale_acc=False)),
        "sum-not-rescaled": wrong("The running sum is not rescaled when the maximum grows: "
                                  "multiply it by exp(m - new_m) before you add a block.",
                                  Loop(rescale_total=False)),
        "stale-max": wrong("Only the last block counts: m is never renewed, so exp(m - new_m) is "
                           "exp(-inf) = 0 each time. End the loop with m = new_m.",
                           Loop(renew=False)),
        "each-block-normalised": wrong("Every block is divided by its own sum and the blocks are "
                                       "added up. Divide once, after the loop, by the running sum.",
                                       Loop(each=True)),
        "not-divided": wrong("The accumulator is never divided by the sum of the weights.",
                             Loop(divide=False)),
        "no-scale": wrong("The scores are not multiplied by scale.", Loop(scale=1 / scale)),
        "scale-twice": wrong("The scores are multiplied by scale twice.", Loop(scale=scale)),
        "exp2": wrong("You take powers of 2; with exp2 the scores must be multiplied by log2(e).",
                      Loop(exp=torch.exp2)),
        "tail-dropped": ("The last block is left out when it is shorter than the others.",
                         lambda: (s[:, : max(size, len(k) // size * size)].softmax(-1)
                                  @ v[: max(size, len(k) // size * size)].double())),
        "last-block-missing": wrong("The last block is never used.", Loop(skip_last=1)),
        "first-block-missing": wrong("The first block is never used.", Loop(skip_first=1)),
        "first-block-only": ("Only the first block is used.",
                             s[:, :size].softmax(-1) @ v[:size].double()),
    }
    if len(k) <= size:
        known = {key: known[key] for key in ("not-divided", "no-scale", "scale-twice", "exp2")}
    fine = q.dtype == torch.float32
    try:
        c.expect_close(got, want.float(), axes=("query", "feature"), known=known, what="out",
                       atol=3e-5 if fine else 5e-4, rtol=3e-5 if fine else 5e-4)
    except Mistake as mistake:
        if not fine and mistake.key == "wrong-values":
            raise Mistake("On float16 input the result is too coarse: widen q, the keys and the "
                          "values to float32 before you multiply.", "low-precision",
                          mistake.details) from mistake
        mistake.details.append(_where(c, q, k, v, scale, size))
        raise
    c.expect_close(got_lse, want_lse.float(), axes=("query",), what="lse",
                   atol=3e-5 if fine else 5e-4, rtol=3e-5 if fine else 5e-4, known={
        "lse-without-max": ("lse is the logarithm of the sum alone; add the maximum that was "
                            "subtracted: m + log(sum).", want_lse - s.amax(-1)),
        "sum-not-log": ("lse is the sum itself; return m + log(sum).",
                        (s - s.amax(-1, True)).exp().sum(-1)),
        "lse-max": ("lse is the maximum alone; add the logarithm of the sum.", s.amax(-1)),
    })


def _not_finite(far: bool) -> str:
    if far:
        return ("With scores that lie hundreds apart the result is not finite: an exponential "
                "overflowed. Every exponent must be at most 0: subtract the running maximum, "
                "torch.maximum(m, the block's), which never falls.")
    return ("The result is not finite. exp(s - m) overflows when m is the maximum of the blocks "
            "before this one, -inf at first: subtract new_m, which knows this block too. And the "
            "factor is exp(m - new_m), 0 at first; upside down it is infinite.")


def _where(c: Check, q: Tensor, k: Tensor, v: Tensor, scale: float, size: int) -> str:
    """After how many blocks the result first goes wrong."""
    blocks = -(-len(k) // size)
    for n in range(1, blocks + 1):
        keys, values = k[: n * size].contiguous(), v[: n * size].contiguous()
        want = (q.double() @ keys.double().T * scale).softmax(-1) @ values.double()
        try:
            got = pair(c.call(q, keys, values, scale, size), "(out, lse)")[0]
            wrong = got.shape != want.shape or not torch.allclose(got.double(), want, atol=1e-3)
        except Mistake:
            wrong = True
        if wrong:
            right = "" if n == 1 else f"With the first {n - 1} alone it is right. "
            return (f"With {blocks} blocks of {size} keys. {right}Block {n - 1} (keys "
                    f"{(n - 1) * size} to {min(n * size, len(k)) - 1}) is the first to go wrong.")
    return f"With {blocks} blocks of {size} keys."


def _small_memory(c: Check, g: torch.Generator) -> None:
    """A long context: nothing as large as the score matrix, nor the keys widened at once."""
    queries, context, dim, size = 24, 480, 8, 16
    q, k, v = (torch.randn(n, dim, generator=g) for n in (queries, context, context))
    with Largest() as seen:
        c.call(q, k, v, 0.3, size)
    limit = max(queries * max(size, dim), context * dim)  # the keys themselves are there already
    c.expect(seen.elements <= limit, "whole-matrix",
             f"With {queries} queries and {context} keys your largest tensor has {seen.elements:,} "
             f"numbers; a block of scores has {queries * size:,}. The point is never to make the "
             f"whole score matrix ({queries * context:,}).")
