"""Which range of numbers a scale should cover: all of them, most of them, or the best part.

A wide range clips nothing and rounds coarsely; a narrow one rounds finely and clips the largest
numbers. Every function takes [rows, n] and returns the low and the high end of each row's range.
Chapter 4; choosing the range by its squared error follows arXiv:2106.08295.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.quant import affine

STEPS = 40  # ranges that `mse` tries, from all of a row's range down to a fifth of it
SMALLEST = 0.2


def minmax(x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest number of each row: nothing is clipped. x: [rows, n]."""
    return x.amin(dim=-1), x.amax(dim=-1)


def percentile(x: Tensor, share: float = 0.999) -> tuple[Tensor, Tensor]:
    """The range that keeps `share` of each row's numbers, with as many cut off at either end.

    x: [rows, n]. Of n numbers round(n * (1 - share) / 2) are cut off at each end.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"A share of {share:g} of the numbers cannot be kept: choose above 0, at "
                          "most 1.")
    count = x.shape[-1]
    cut = min(round(count * (1 - share) / 2), (count - 1) // 2)
    if cut == 0:
        return minmax(x)
    low = x.topk(cut + 1, dim=-1, largest=False).values[..., -1]
    return low, x.topk(cut + 1, dim=-1).values[..., -1]


def mse(x: Tensor, bits: int, symmetric: bool = True) -> tuple[Tensor, Tensor]:
    """The share of each row's range whose rounded numbers have the least squared error.

    x: [rows, n]. Tries STEPS ranges from the whole one down to SMALLEST of it.
    """
    x = x.float()
    low, high = minmax(x)
    best_low, best_high = low, high
    least = torch.full_like(low, float("inf"))
    for i in range(STEPS):
        part = 1 - i * (1 - SMALLEST) / (STEPS - 1)
        scale, zero = affine.scale_and_zero(low * part, high * part, bits, symmetric)
        scale, zero = scale[..., None], zero[..., None]
        back = affine.dequantize(affine.quantize(x, scale, zero, bits), scale, zero)
        error = (back - x).square().sum(dim=-1)
        better = error < least
        least = torch.where(better, error, least)
        best_low = torch.where(better, low * part, best_low)
        best_high = torch.where(better, high * part, best_high)
    return best_low, best_high
