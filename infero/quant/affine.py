"""Whole numbers for real ones: scales, zero points, rounding, granularity.

Eight bits hold 256 whole numbers. A scale says how far apart the real numbers lie that they stand
for, a zero point which of them stands for 0, so that w = (value - zero) * scale. Chapter 4; the
scheme is that of integer-only inference (arXiv:1712.05877).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.quant import ranges as ranges_module
from infero.quant.codes import Codes

Granularity = Literal["tensor", "channel", "token", "group", "column"]
Ranges = Literal["minmax", "percentile", "mse"]
ROWS = 16384  # rounded at a time: the temporaries in float32 take several times the weight


def scale_and_zero(low: Tensor, high: Tensor, bits: int = 8,
                   symmetric: bool = False) -> tuple[Tensor, Tensor]:
    """The scale and the zero point that make `bits` bits cover the range from low to high.

    low, high: any one shape. The range is first widened to contain 0, which must have a value of
    its own. Symmetric: the zero point is 2 ** (bits - 1), and the largest magnitude lies
    2 ** (bits - 1) - 1 steps from it. Otherwise low lands on value 0 and high on 2 ** bits - 1, and
    the zero point is rounded to a whole number. A range of nothing but 0 gets scale 1.
    Returns two float32 tensors of that shape.
    """
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    if symmetric:
        scale = torch.maximum(-low, high) / (2 ** (bits - 1) - 1)
    else:
        scale = (high - low) / (2 ** bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    if symmetric:
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    return scale, (-low / scale).round().clamp(0, 2 ** bits - 1)


def quantize(x: Tensor, scale: Tensor, zero: Tensor, bits: int = 8) -> Tensor:
    """The whole number nearest to x / scale, counted from the zero point, within `bits` bits.

    x: any shape and float dtype; scale, zero: float32, of shapes that broadcast with it. x / scale
    is rounded first, in float32 and halves to the even number; then the zero point is added; what
    lies outside 0 .. 2**bits - 1 gets the nearer end. Returns uint8 of x's shape.
    """
    values = (x.float() / scale).round() + zero
    return values.clamp(0, 2 ** bits - 1).to(torch.uint8)


def dequantize(values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The real numbers that values stand for: (value - zero) * scale.

    values: any shape, uint8; scale, zero: float32, of shapes that broadcast with it. Returns
    float32 of the values' shape.
    """
    return (values.float() - zero) * scale


def rtn(weight: Tensor, bits: int, group: int | None = None, symmetric: bool = True,
        ranges: Ranges = "minmax") -> Codes:
    """Round a weight to nearest, with one scale for every `group` inputs of a row.

    weight: [out, in]. group None: one scale a row ("per channel"). The last group of a row may be
    shorter. ranges: how the range of a group is chosen, see ranges.py.
    """
    check(weight, bits, group, symmetric)
    inputs = weight.shape[1]
    group = inputs if group is None else min(group, inputs)
    parts = [_rows(part, bits, group, symmetric, ranges) for part in weight.split(ROWS)]
    values, scales, zeros = (torch.cat(each) for each in zip(*parts, strict=True))
    return Codes(values, scales, zeros, bits, group)


def fake_quantize(x: Tensor, bits: int, *, granularity: Granularity = "tensor", group: int = 64,
                  symmetric: bool = True, ranges: Ranges = "minmax") -> Tensor:
    """x after rounding to `bits` bits and back: the same shape and dtype, fewer distinct numbers.

    x: [..., in]. granularity says which numbers share a scale: all ("tensor"), a row of a weight
    ("channel") or of activations ("token"), `group` neighbours in a row ("group"), or an input
    channel over all rows ("column").
    """
    rows = x.reshape(1, -1) if granularity == "tensor" else x.reshape(-1, x.shape[-1])
    if granularity == "column":
        rows = rows.T
    codes = rtn(rows, bits, group if granularity == "group" else None, symmetric, ranges)
    each = torch.arange(rows.shape[1], device=x.device) // codes.group
    back = dequantize(codes.values, codes.scales[:, each], codes.zeros[:, each])
    return (back.T if granularity == "column" else back).reshape(x.shape).to(x.dtype)


def check(weight: Tensor, bits: int, group: int | None = None, symmetric: bool = True) -> None:
    """Refuse what cannot be rounded, with the value, the limit and the remedy."""
    least = 2 if symmetric else 1
    if not least <= bits <= 8:
        raise ConfigError(f"{bits} bits cannot hold {'symmetric ' if symmetric else ''}values: "
                          f"choose {least} to 8.")
    if weight.dim() != 2 or weight.numel() == 0:
        raise ConfigError(f"A weight of shape {tuple(weight.shape)} is no matrix [out, in].")
    if group is not None and group < 1:
        raise ConfigError(f"A group of {group} inputs is empty: choose 1 or more, or None for one "
                          "scale a row.")
    finite = weight.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise ConfigError(f"{int((~finite).sum())} of the weight's {weight.numel()} numbers are "
                          f"not finite, the first is {weight[row, column].item()} at row {row}, "
                          f"column {column}: the checkpoint is damaged or was saved in a type that "
                          "overflowed.")


def _rows(weight: Tensor, bits: int, group: int, symmetric: bool,
          ranges: Ranges) -> tuple[Tensor, Tensor, Tensor]:
    """values [rows, in], scales and zeros [rows, groups] of some rows."""
    rows, inputs = weight.shape
    whole = inputs - inputs % group
    done = []
    for part, width in ((weight[:, :whole], group), (weight[:, whole:], inputs - whole)):
        if width == 0 or part.shape[1] == 0:
            continue
        x = part.float().reshape(-1, width)  # [rows * groups, group]
        low, high = _range(ranges, bits, symmetric)(x)
        scale, zero = scale_and_zero(low, high, bits, symmetric)
        values = quantize(x, scale[:, None], zero[:, None], bits)
        done.append((values.view(rows, -1), scale.view(rows, -1), zero.view(rows, -1)))
    values, scales, zeros = (torch.cat(each, dim=1) for each in zip(*done, strict=True))
    return values, scales, zeros


def _range(name: Ranges, bits: int, symmetric: bool) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    if name == "minmax":
        return ranges_module.minmax
    if name == "percentile":
        return ranges_module.percentile
    if name == "mse":
        return lambda x: ranges_module.mse(x, bits, symmetric)
    raise ConfigError(f"There is no range {name!r}; there are minmax, percentile, mse.")
