"""A quantized matrix before it is packed: what every method of chapters 4 and 5 returns.

A method decides three things: a whole number for each weight, a scale for each group of weights,
and a zero point for each group. How a kernel wants the numbers in memory is decided later, by
`pack`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.kernels import formats


@dataclass(repr=False, eq=False)
class Codes:
    """w[n, k] = (values[n, k] - zeros[n, g]) * scales[n, g], with g = k // group."""

    values: Tensor  # [out, in] uint8, 0 .. 2**bits - 1
    scales: Tensor  # [out, groups] float32, above 0
    zeros: Tensor  # [out, groups] float32; symmetric: 2 ** (bits - 1) everywhere
    bits: int
    group: int  # inputs that share a scale; at least `in`: one scale a row

    def dequantize(self) -> Tensor:
        """The weight the numbers stand for: [out, in] float32."""
        each = torch.arange(self.values.shape[1], device=self.values.device) // self.group
        return (self.values.float() - self.zeros[:, each]) * self.scales[:, each]

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is the middle of the range everywhere."""
        return bool((self.zeros == 2 ** (self.bits - 1)).all())


def bits_a_weight(bits: int, group: int, symmetric: bool, scale_bits: int = 16) -> float:
    """Bits a weight costs with its share of the scales and zero points (`scale_bits` each)."""
    return bits + (scale_bits if symmetric else 2 * scale_bits) / group


def pack(codes: Codes, dtype: torch.dtype) -> formats.Quantized:
    """The numbers in the layout of the engine's kernels, for activations of `dtype`.

    Up to 4 bits become an `Int4Weight` (3 and 2 bits take the room of 4 there: the kernels read
    nibbles); 8 bits, symmetric and one scale a row, an `Int8Weight`.
    """
    if codes.bits <= 4:
        zeros = None if codes.bits == 4 and codes.symmetric else codes.zeros.to(dtype)
        return formats.Int4Weight(formats.pack_int4(codes.values), codes.scales.to(dtype), zeros,
                                  codes.group, codes.values.shape)
    if codes.bits == 8 and codes.scales.shape[1] == 1 and codes.symmetric:
        values = (codes.values.to(torch.int16) - 128).to(torch.int8)
        return formats.Int8Weight(values, codes.scales[:, 0].float(), dtype)
    raise ConfigError(
        f"The kernels have no layout for {codes.bits} bits with {codes.scales.shape[1]} scales a "
        f"row{'' if codes.symmetric else ' and zero points'}: use up to 4 bits, or 8 bits, "
        "symmetric, with one scale a row.")
