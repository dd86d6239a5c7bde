"""What Lab 13 demands of its four pieces, and the mistakes it knows by name.

A kernel is run watched (`infero.lab.kernels.call`), on small random inputs whose widths are no
powers of two, against an oracle in float64. Chapter 13 explains the pieces.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from infero.lab import kernels
from infero.lab.checking import Check, Mistake

# ---------------------------------------------------------------- 1: sectors


def _bytes(indexes: Sequence[int], size: int) -> set[int]:
    """Every byte that the warp touches."""
    return {i * size + at for i in indexes for at in range(size)}


def _span(indexes: Sequence[int], size: int) -> int:
    touched = _bytes(indexes, size)
    return max(touched) // 32 - min(touched) // 32 + 1


_SECTOR_MISTAKES: dict[str, tuple[str, Callable[[list[int], int], int]]] = {
    "counts-elements": (
        "You divide the elements by 32; a sector is 32 bytes, so multiply by element_bytes first.",
        lambda e, size: len({i // 32 for i in e})),
    "counts-lines": ("You count lines of 128 bytes; a sector is 32.",
                     lambda e, size: len({byte // 128 for byte in _bytes(e, size)})),
    "counts-threads": (
        "You count sectors for every thread; threads that touch the same one share it.",
        lambda e, size: sum(len({b // 32 for b in _bytes([i], size)}) for i in e)),
    "assumes-packed": (
        "You divide the bytes wanted by 32, as if they lay side by side from a sector's start. "
        "Which sectors they lie in decides.", lambda e, size: -(len(set(e)) * size // -32)),
    "assumes-aligned": (
        "You take the span from the first byte to the last and divide by 32; it may begin in the "
        "middle of a sector, and leave some out.",
        lambda e, size: -((max(e) - min(e) + 1) * size // -32)),
    "counts-span": (
        "You count every sector between the first and the last; those that no thread touches are "
        "not moved.", _span),
    "first-byte-only": (
        "You look at the sector of each element's first byte. An element that crosses an edge, or "
        "is wider than 32 bytes, is in several.",
        lambda e, size: len({i * size // 32 for i in e})),
    "one-byte-too-far": (
        "An element ends at byte (i + 1) * element_bytes - 1; you count the byte after it too.",
        lambda e, size: len({b // 32 for b in _bytes(e, size)}
                            | {(i + 1) * size // 32 for i in e})),
}


def sectors(c: Check) -> None:
    """Patterns by hand, then random ones, against a count of single bytes."""
    fixed = [(range(32), 4), (range(0, 64, 2), 4), (range(5, 37), 4), (range(0, 32 * 32, 32), 4),
             ([7] * 32, 4), (range(31, -1, -1), 4), (range(32), 2), (range(32), 16),
             ([0, 1, 2], 4), (range(0, 96, 3), 12), ([3], 48)]
    cases = [(list(indexes), size) for indexes, size in fixed]
    for seed in c.seeds(3):
        pick = random.Random(seed)
        for size in (1, 2, 4, 8, 12, 16):
            start = pick.randrange(50)
            cases.append(([start + pick.randrange(200) for _ in range(pick.randint(1, 32))], size))
    got = [c.call(list(indexes), size) for indexes, size in cases]
    want = [len({byte // 32 for byte in _bytes(indexes, size)}) for indexes, size in cases]
    for (indexes, size), mine, right in zip(cases, got, want, strict=True):
        if isinstance(mine, int) and mine == right:
            continue
        shown = ", ".join(str(i) for i in indexes[:4]) + (", ..." if len(indexes) > 4 else "")
        what = f"the count for elements {shown} of {size} bytes"
        for key, (words, wrong) in _SECTOR_MISTAKES.items():
            if got == [wrong(*case) for case in cases]:
                raise Mistake(words, key, [f"{what.capitalize()} is {mine}, expected {right}."])
        c.expect_equal(mine, right, what=what)


# ---------------------------------------------------------------- 2: swiglu


def _halves(rows: int, n: int, g: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two halves of one tensor, as the engine's projection gives them."""
    both = (2 * torch.randn(rows, 2 * n, generator=g)).to(dtype)
    return both[:, :n], both[:, n:]


def swiglu(c: Check) -> None:
    """Contiguous inputs, then halves of one tensor, one wider than a block of 1,024."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for rows, n, apart, dtype in [(3, 70, False, torch.float32), (4, 33, True, torch.float32),
                                      (2, 1030, True, torch.float16), (1, 5, False, torch.float32)]:
            gate, up = _halves(rows, n, g, dtype)
            if not apart:
                gate, up = gate.contiguous(), up.contiguous()
            a, b = gate.double(), up.double()
            wide = torch.cat((gate, up), dim=1).double()  # what a wrong stride reads

            def shifted(wide: Tensor = wide, rows: int = rows, n: int = n) -> Tensor:
                flat = torch.cat((wide.flatten(), torch.zeros(n).double()))
                x = flat[: rows * n].view(rows, n)
                y = flat[n : n + rows * n].view(rows, n)
                return x * torch.sigmoid(x) * y

            tol = 2e-5 if dtype == torch.float32 else 4e-3
            c.expect_close(
                kernels.call(c, gate, up), (a * torch.sigmoid(a) * b).to(dtype),
                axes=("row", "column"), atol=tol, rtol=tol,
                known={
                    "wrong-stride": ("Row r is read at r * n, but gate and up are halves of a "
                                     "wider tensor, whose rows lie gate.stride(0) numbers apart. "
                                     "(Row 0 is right in such a kernel.)", shifted),
                    "sigmoid-only": ("You multiply up by sigmoid(gate); silu(gate) is gate * "
                                     "sigmoid(gate).", torch.sigmoid(a) * b),
                    "silu-on-up": ("Silu is applied to up; it belongs on gate.",
                                   a * b * torch.sigmoid(b)),
                    "missing-up": ("up is never multiplied in.", a * torch.sigmoid(a)),
                    "relu": ("That is ReLU; SiLU is gate * sigmoid(gate).", a.relu() * b),
                })
    gate = torch.tensor([[-120.0, -90.0, 0.0, 90.0, 120.0]])
    got = kernels.call(c, gate, torch.ones(1, 5))
    c.expect(bool(torch.isfinite(got).all()), "overflow",
             "A gate of 120 or -120 gives NaN or inf: exp(120) overflows float32. tl.sigmoid "
             "handles both ends.")


# ---------------------------------------------------------------- 3: rms_norm


def rms_norm(c: Check) -> None:
    """Rows with tails, eps large and small, then float16 with squares beyond its range."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for shape, eps in [((3, 70), 0.3), ((2, 3, 33), 1e-5), ((2, 130), 0.05), ((4, 64), 0.1)]:
            n = shape[-1]
            x = torch.randn(shape, generator=g) + 0.5
            w = torch.rand(n, generator=g) + 0.5
            d, wd = x.double(), w.double()
            ms = d.square().mean(-1, keepdim=True)
            block = 1 << (n - 1).bit_length()
            axes = ("token", "head", "column") if len(shape) == 3 else ("row", "column")
            c.expect_close(
                kernels.call(c, x, w, eps), wd * d / (ms + eps).sqrt(), axes=axes,
                dtype=torch.float32, atol=3e-5, rtol=3e-5,
                known={
                    "mean-over-block": (
                        f"The sum of squares is divided by the block's {block} lanes; the row has "
                        f"{n} numbers. Lanes beyond the row add 0 to the sum and must not count in "
                        "the mean.", wd * d / (ms * n / block + eps).sqrt()),
                    "sum-not-mean": ("You add the squares up; take their mean over the row.",
                                     wd * d / (ms * n + eps).sqrt()),
                    "missing-eps": ("eps is not added under the root.", wd * d / ms.sqrt()),
                    "eps-outside-root": ("eps is added to the root; it belongs under it.",
                                         wd * d / (ms.sqrt() + eps)),
                    "missing-root": ("You divide by the mean square; take its square root.",
                                     wd * d / (ms + eps)),
                    "missing-weight": ("The result is never multiplied by weight.",
                                       d / (ms + eps).sqrt()),
                    "weight-per-row": ("The weight is indexed by the row; every row takes the "
                                       "weights of the columns, weight + columns.",
                                       _weight_by_row(d, wd, ms, eps)),
                    "other-one": ("Lanes beyond the row are loaded as 1 and add to the sum; give "
                                  "the load other=0.0.",
                                  wd * d / (ms + (block - n) / n + eps).sqrt()),
                    "layer-norm": ("You subtract the mean first: that is LayerNorm.",
                                   _layer_norm(d, wd, eps)),
                })
    x = torch.randn(3, 40, generator=c.generator(7)) * 600  # squares beyond float16's 65,504
    half = x.half()
    got = kernels.call(c, half, torch.ones(40).half(), 1e-6)
    want = half.double() / half.double().square().mean(-1, keepdim=True).sqrt()
    c.expect_close(got, want.half(), axes=("row", "column"), atol=2e-3, rtol=5e-3, known={
        "low-precision": ("On float16 input with values in the hundreds the squares overflow. "
                          "Convert after loading: `.to(tl.float32)`.", torch.zeros(3, 40).half())})
    transposed = torch.randn(6, 4, generator=c.generator(8)).T
    d = transposed.double()
    c.expect_close(kernels.call(c, transposed, torch.ones(6), 0.1),
                   d / (d.square().mean(-1, keepdim=True) + 0.1).sqrt(), axes=("row", "column"),
                   dtype=torch.float32, atol=3e-5, rtol=3e-5, known={
                       "not-contiguous": ("x may be a transposed view: take "
                                          "x.reshape(-1, n).contiguous() before the launch.",
                                          torch.full((4, 6), torch.nan))})


def _weight_by_row(d: Tensor, w: Tensor, ms: Tensor, eps: float) -> Tensor:
    rows = d.reshape(-1, d.shape[-1])
    factor = w[: len(rows)] if len(rows) <= len(w) else w.new_zeros(len(rows))
    scaled = rows / (ms.reshape(-1, 1) + eps).sqrt() * factor[:, None]
    return scaled.reshape(d.shape)


def _layer_norm(d: Tensor, w: Tensor, eps: float) -> Tensor:
    centred = d - d.mean(-1, keepdim=True)
    return w * centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


# ---------------------------------------------------------------- 4: rope


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs (i, i + half) of x [tokens, heads, dim] as complex numbers."""
    half = x.shape[-1] // 2
    x = x.double()
    z = torch.complex(x[..., :half], x[..., half:])
    z = z * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat((z.real, z.imag), dim=-1)


def rope(c: Check) -> None:
    """Odd numbers of heads and pairs, positions that no counter would give, rows far apart."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for tokens, heads, half, extra in [(5, 3, 5, 0), (2, 1, 8, 0), (3, 4, 6, 2), (1, 2, 1, 1)]:
            whole = torch.randn(tokens, heads + extra, 2 * half, generator=g)
            x = whole[:, :heads]
            positions = torch.randint(0, 40, (tokens,), generator=g)
            inv_freq = torch.rand(half, generator=g) + 0.05
            angles = positions.double()[:, None] * inv_freq.double()
            count = torch.arange(tokens).double()[:, None] * inv_freq.double()
            a, b = x.double().chunk(2, dim=-1)
            cos, sin = angles.cos()[:, None], angles.sin()[:, None]
            packed = torch.cat((whole.flatten(), torch.zeros(tokens * 2 * half)))
            packed = packed[: x.numel()].view(x.shape)
            c.expect_close(
                kernels.call(c, x, positions, inv_freq), _turned(x, angles),
                axes=("token", "head", "column"), dtype=torch.float32, atol=5e-5, rtol=5e-5,
                known={
                    "not-rotated": ("Nothing was rotated.", x.double()),
                    "wrong-stride": ("Token t is read at t * heads * dim, but x is a part of a "
                                     "wider tensor, whose tokens lie x.stride(0) numbers apart. "
                                     "(Token 0 is right in such a kernel.)",
                                     _turned(packed, angles)),
                    "positions-ignored": ("You turn token t by t; its position is "
                                          "positions[t], which must be loaded.", _turned(x, count)),
                    "backwards": ("The pairs turn the wrong way: check the signs of the sines.",
                                  _turned(x, -angles)),
                    "both-minus": ("One of the two halves needs a plus: a cos - b sin and "
                                   "b cos + a sin.",
                                   torch.cat((a * cos - b * sin, b * cos - a * sin), dim=-1)),
                    "sin-cos-swapped": ("Sine and cosine have changed places.",
                                        torch.cat((a * sin - b * cos, b * sin + a * cos), dim=-1)),
                    "interleaved": ("You pair neighbours (2i, 2i + 1); the pairs are "
                                    "(i, i + dim/2).", _woven(x, angles)),
                    "in-turn": ("The second half is computed from the first half's new value; keep "
                                "both old values until both new ones are made.",
                                _in_turn(a, b, cos, sin)),
                    "same-head": ("Every head gets the result of head 0: the head belongs into the "
                                  "offset.", _turned(x[:, :1].expand_as(x), angles)),
                })


def _woven(x: Tensor, angles: Tensor) -> Tensor:
    pairs = torch.cat((x[..., ::2], x[..., 1::2]), dim=-1)
    turned = _turned(pairs, angles)
    half = x.shape[-1] // 2
    return torch.stack((turned[..., :half], turned[..., half:]), dim=-1).flatten(-2)


def _in_turn(a: Tensor, b: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first = a * cos - b * sin
    return torch.cat((first, b * cos + first * sin), dim=-1)
