"""What Lab 4 demands of its seven pieces, and the mistakes it knows by name.

Here are the three of whole numbers (scale and zero point, rounding, back again); those of
activations, outliers and floats are in `lab04_activations.py` and are named here too. Inputs of
rounding are built around known whole numbers, so that no expected value hangs on a tie unless a tie
is what is asked about. Chapter 4 explains the pieces.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab04_activations import (
    multiply,
    quantize_tokens,
    smoothing_factors,
    to_e4m3,
)

__all__ = ["dequantize", "multiply", "quantize", "quantize_tokens", "scale_and_zero",
           "smoothing_factors", "to_e4m3"]

# ---------------------------------------------------------------- 1: scale_and_zero


def pair(got: Any, first: str, second: str) -> tuple[Tensor, Tensor]:
    """The two tensors a piece returns."""
    if got is None:
        raise Mistake("The function returns None: does it end in `return`?", "returns-none")
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Mistake(f"Return two tensors, {first} and {second}: `return {first}, {second}`.",
                      "wrong-type")
    return got[0], got[1]


def scale_and_zero(c: Check) -> None:
    """Ranges on both sides of 0, on one side of it, and of nothing; several bits and shapes."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for shape, bits in (((7,), 8), ((3, 5), 4), ((), 3), ((4, 2), 2)):
            low = -torch.rand(shape, generator=g) * 3 - 0.05
            high = torch.rand(shape, generator=g) * 5 + 0.05
            _one_range(c, low, high, bits, False, "a range around 0")
            _one_range(c, low, high, bits, True, "a range around 0")
            _one_range(c, low * 4, high, bits, True, "a range whose low end is farther from 0")
        above, below = torch.rand(6, generator=g) + 0.5, -torch.rand(6, generator=g) - 0.5
        for symmetric in (False, True):
            _one_range(c, above, above * 2, 4, symmetric, "a range above 0")
            _one_range(c, below * 2, below, 4, symmetric, "a range below 0")
            mixed = torch.tensor([0.0, 1.5])
            _one_range(c, -mixed, mixed, 8, symmetric, "a range of nothing but 0, and another")
    half = torch.tensor([-1.1, -0.3]).bfloat16(), torch.tensor([2.3, 0.9]).bfloat16()
    _one_range(c, *half, 8, False, "bfloat16 ends")


def _one_range(c: Check, low: Tensor, high: Tensor, bits: int, symmetric: bool, told: str) -> None:
    a, b = low.double().clamp(max=0), high.double().clamp(min=0)
    top, middle = 2 ** bits - 1, 2 ** (bits - 1)
    where = f"for {told} ({bits} bits, {'symmetric' if symmetric else 'asymmetric'})"
    far = torch.maximum(-a, b)

    def whole(scale: Tensor) -> Tensor:
        return torch.where(scale > 0, scale, 1.0)

    want = whole(far / (middle - 1) if symmetric else (b - a) / top)
    if not symmetric:  # keep the zero point away from a tie, which float32 may see otherwise
        at = -a / want
        near = (at % 1 - 0.5).abs() < 0.02
        if bool(near.any()):
            low = torch.where(near, torch.zeros_like(low), low)
            return _one_range(c, low, high, bits, symmetric, told)
    scale, zero = pair(c.call(low, high, bits, symmetric), "scale", "zero")
    nothing = (a == 0) & (b == 0)
    if bool(nothing.any()) and isinstance(scale, Tensor) and scale.shape == want.shape:
        bad = nothing & ~(scale > 0)
        c.expect(not bool(bad.any()), "zero-scale",
                 f"A range of nothing but 0 gets scale {float(scale[nothing][0]):g}. Dividing by "
                 "it gives NaN; any scale would do there, and the contract says 1.")
    ends = -low.double(), high.double()
    known_scale = {
        "no-zero-in-range": ("The range is not widened to contain 0. It must be: 0 needs a value "
                             "of its own (padding, masked tokens, dead neurons are exactly 0)",
                             whole(torch.maximum(*ends) / (middle - 1) if symmetric
                                   else (ends[1] + ends[0]) / top)),
        "levels-off-by-one": (f"{bits} bits have {top + 1} values and {top} steps between them: "
                              "divide by the steps", whole((b - a) / (top + 1))),
        "symmetric-half": ("The largest magnitude should land 2 ** (bits - 1) - 1 steps from the "
                           "zero point; you divide by 2 ** (bits - 1)", whole(far / middle)),
        "symmetric-ignored": ("`symmetric` is ignored: the asymmetric scale comes back",
                              whole((b - a) / top)),
        "symmetric-both-ends": ("In the symmetric case the range has its larger magnitude on both "
                                "sides; you divide one side by all the steps", whole(far / top)),
        "high-only": ("In the symmetric case the *larger* of |low| and |high| counts; you look at "
                      "high alone", whole(b / (middle - 1))),
        "low-only": ("In the symmetric case the *larger* of |low| and |high| counts; you look at "
                     "low alone", whole(-a / (middle - 1))),
        "always-eight": ("`bits` is ignored: 8 comes back", whole(
            far / 127 if symmetric else (b - a) / 255)),
        "inverse": ("That is 1 / scale: a scale is the distance of two neighbouring values",
                    1 / want),
    }
    c.expect_close(scale, want, axes=_axes(want), dtype=torch.float32, rtol=2e-6, atol=1e-9,
                   known=known_scale, what=f"the scale {where}")
    if symmetric:
        right = torch.full_like(want, middle)
        known = {
            "symmetric-zero-0": ("Values are unsigned here, 0 to 2 ** bits - 1, so the symmetric "
                                 "zero point is the middle, 2 ** (bits - 1)",
                                 torch.zeros_like(want)),
            "symmetric-zero-low": ("The symmetric zero point is 2 ** (bits - 1), one more than you "
                                   "have", right - 1),
            "symmetric-zero-computed": ("In the symmetric case the zero point is 2 ** (bits - 1) "
                                        "whatever the range; you work it out from low",
                                        (-a / want).round()),
        }
    else:
        right = (-a / want).round()
        known = {
            "zero-not-whole": ("The zero point is not a whole number: round it. Otherwise 0.0 has "
                               "no value of its own", -a / want),
            "zero-truncated": ("The zero point is cut off and not rounded", (-a / want).floor()),
            "zero-sign": ("The zero point has the wrong sign: it says how many steps 0 lies above "
                          "low", (a / want).round()),
            "zero-from-high": ("You count the steps from 0 up to high; count those from low up to "
                               "0", (b / want).round()),
            "zero-middle": ("The zero point is always the middle; that is the symmetric case",
                            torch.full_like(want, middle)),
            "zero-signed": ("Your zero point belongs to signed values; here they run from 0 to "
                            "2 ** bits - 1", (-a / want).round() - middle),
        }
    c.expect_close(zero, right, axes=_axes(want), dtype=torch.float32, rtol=0, atol=1e-4,
                   known=known, what=f"the zero point {where}")


def _axes(t: Tensor) -> tuple[str, ...]:
    return ("row", "group")[: t.dim()]


# ---------------------------------------------------------------- 2a: quantize


def quantize(c: Check) -> None:
    """Numbers around known multiples of the scale; then ties, and a scale of no dimensions."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for bits in (8, 4, 3):
            for rows, groups, width in ((3, 1, 17), (2, 4, 8), (1, 1, 5)):
                _one_quantize(c, g, bits, rows, groups, width)
    halves = torch.arange(-16, 17).float() / 4  # -4, -3.75, .. 4: every second one of them a tie
    for bits, middle in ((4, 7.0), (4, 8.0), (3, 3.0)):
        for step in (1.0, 0.25):
            _judge(c, halves * step, torch.tensor(step), torch.tensor(middle), bits,
                   "numbers among which are ties")
    x = torch.linspace(-3, 3, 41).bfloat16()
    scale, zero = torch.tensor(0.0237), torch.tensor(128.0)
    keep = ((x.double() / scale.double()) % 1 - 0.5).abs() > 0.05
    _judge(c, x[keep], scale, zero, 8, "bfloat16 numbers")


def _one_quantize(c: Check, g: torch.Generator, bits: int, rows: int, groups: int,
                  width: int) -> None:
    top = 2 ** bits - 1
    scale = torch.rand(rows, groups, 1, generator=g) + 0.05
    zero = torch.randint(1, top, (rows, groups, 1), generator=g).float()
    steps = torch.randint(-top - 4, top + 5, (rows, groups, width), generator=g)
    steps[..., 0], steps[..., 1] = top + 60, -top - 60  # far outside on either side
    x = (steps + (torch.rand(steps.shape, generator=g) - 0.5) * 0.9) * scale
    if groups == 1:
        x, scale, zero = x[:, 0], scale[:, 0], zero[:, 0]
    _judge(c, x, scale, zero, bits, "numbers inside and outside the range")


def _judge(c: Check, x: Tensor, scale: Tensor, zero: Tensor, bits: int, told: str) -> None:
    top = 2 ** bits - 1
    at = x.double() / scale.double()
    low = (x / scale).double()
    z = zero.double()

    def code(values: Tensor) -> Tensor:
        return values.clamp(0, top).to(torch.uint8)

    def wrapped(values: Tensor, size: int = 256) -> Tensor:
        return (values.long() % size).to(torch.uint8)

    away = at.abs().add(0.5).floor() * at.sign()
    known = {
        "truncates": ("The numbers are cut off towards 0 and not rounded to nearest",
                      code(at.trunc() + z)),
        "truncates-after": ("The numbers are cut off (`.to(torch.uint8)` does that) and not "
                            "rounded to nearest", code((at + z).clamp(0, top).trunc())),
        "half-away": ("Ties go away from 0: 0.5 becomes 1. Here halves go to the even number, as "
                      "torch.round does, so that they do not all push the same way",
                      code(away + z)),
        "half-up": ("Ties always go up; halves go to the even number, as torch.round does",
                    code((at + 0.5).floor() + z)),
        "rounds-after-zero": ("You add the zero point before rounding. With an odd zero point that "
                              "sends ties to the other side: round x / scale first",
                              code((at + z).round())),
        "no-zero": ("The zero point is missing", code(at.round())),
        "zero-subtracted": ("The zero point is subtracted; it is added on the way to whole "
                            "numbers", code(at.round() - z)),
        "no-clamp": ("What lies outside the range wraps around to the other end: clamp before "
                     "converting to uint8", wrapped(at.round() + z)),
        "clamps-to-255": (f"You clamp to 0 .. 255 whatever `bits` is; {bits} bits end at {top}",
                          (at.round() + z).clamp(0, 255).to(torch.uint8)),
        "wraps-in-bits": ("What lies outside the range wraps around: clamp it", wrapped(
            at.round() + z, top + 1)),
        "clamps-one-short": (f"The largest value is {top}; you clamp at {top - 1}",
                             (at.round() + z).clamp(0, top - 1).to(torch.uint8)),
        "clamps-one-long": (f"The largest value is {top}; you clamp at {top + 1}",
                            (at.round() + z).clamp(0, top + 1).to(torch.uint8)),
        "clamps-before-zero": ("You clamp before the zero point is added: the numbers below 0 are "
                               "lost", code(at.round().clamp(0, top) + z)),
        "clamps-signed": ("You clamp to the range of signed numbers before adding the zero point; "
                          "clamp the sum to 0 .. 2 ** bits - 1",
                          code(at.round().clamp(-(top + 1) // 2, top // 2) + z)),
        "multiplies": ("You multiply by the scale; divide", code(
            (x.double() * scale.double()).round() + z)),
        "low-precision": ("The quotient is computed in the low precision of x: a scale of no "
                          "dimensions does not widen it. Use x.float()",
                          code(low.round() + z)),
    }
    want = code(at.round() + z)
    axes = ("row", "group", "input") if x.dim() == 3 else ("row", "input")[-x.dim():]
    c.expect_equal(c.call(x, scale, zero, bits), want, axes=axes, known=known,
                   what=f"the values of {told} ({bits} bits)")


# ---------------------------------------------------------------- 2b: dequantize


def dequantize(c: Check) -> None:
    """Random values of a row, of groups and alone; values below their zero point are common."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for shape, tables in (((3, 17), (3, 1)), ((2, 4, 8), (2, 4, 1)), ((6,), ())):
            values = torch.randint(0, 256, shape, generator=g).to(torch.uint8)
            scale = torch.rand(tables, generator=g) + 0.05
            zero = torch.randint(60, 200, tables, generator=g).float()
            v, s, z = values.double(), scale.double(), zero.double()
            known = {
                "no-zero": ("The zero point is never subtracted", v * s),
                "scale-first": ("You multiply first and subtract the zero point afterwards; it "
                                "counts steps, so subtract it from the value", v * s - z),
                "zero-added": ("The zero point is added; subtract it", (v + z) * s),
                "divides": ("You divide by the scale; multiply", (v - z) / s),
                "wraps": ("Values below the zero point came out huge: the difference was formed in "
                          "uint8, which has no negative numbers. Convert with .float() first",
                          ((v - z) % 256) * s),
                "fixed-zero": ("The zero point is fixed at 128; use `zero`", (v - 128) * s),
                "backwards": ("The sign is the wrong way round: value - zero", (z - v) * s),
            }
            axes = ("row", "group", "input") if len(shape) == 3 else ("row", "input")[-len(shape):]
            c.expect_close(c.call(values, scale, zero), (v - z) * s, axes=axes,
                           dtype=torch.float32, rtol=1e-5, atol=1e-5, known=known,
                           what="the numbers")
