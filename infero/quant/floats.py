"""Eight-bit floating point, by arithmetic: E4M3, E5M2, and any small float.

A float of e exponent and m mantissa bits has 2**m numbers in every doubling of size, and equally
spaced ones below the smallest normal number. FP8 for deep learning is arXiv:2209.05433: E4M3 gives
up infinity and has one NaN, which leaves 448 as its largest number; E5M2 is a shortened float16.
Chapter 4. The codes are those of torch.float8_e4m3fn and torch.float8_e5m2, bit for bit. (What lies
beyond 448 saturates, as in torch 2.13; some releases before it return NaN there.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.kernels import formats
from infero.quant import affine

E4M3_LARGEST = 448.0
E5M2_LARGEST = 57344.0


def to_e4m3(x: Tensor) -> Tensor:
    """The code of the nearest E4M3 number: sign, 4 bits of exponent (bias 7), 3 of mantissa.

    x: any shape, a floating dtype. Halves go to the even code. Numbers below 2**-6 have a fixed
    step of 2**-9. Larger than 448, infinity included, becomes 448, code 126; NaN is code 127; both
    keep x's sign. Returns uint8 codes of x's shape.
    """
    size = x.float().abs().clamp(max=448)
    mantissa, exponent = torch.frexp(size)  # size = mantissa * 2**exponent, mantissa in [0.5, 1)
    normal = (mantissa * 16).round() + (exponent + 5) * 8
    code = torch.where(size < 2 ** -6, (size * 2 ** 9).round(), normal)
    code = torch.where(size.isnan(), 127.0, code)
    return (code + 128 * x.signbit()).to(torch.uint8)


def weight_e4m3(weight: Tensor) -> formats.Fp8Weight:
    """A weight in E4M3 with one scale a row, as the engine's kernels take it. weight: [out, in].

    The largest magnitude of a row lands on 448.
    """
    affine.check(weight, 8)
    largest = weight.float().abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / E4M3_LARGEST, 1.0)
    codes = to_e4m3(weight.float() / scales[:, None])
    return formats.Fp8Weight(codes.view(torch.float8_e4m3fn), scales, weight.dtype)


def from_e4m3(codes: Tensor) -> Tensor:
    """The numbers that E4M3 codes stand for: float32, of the codes' shape (uint8)."""
    table = [*magnitudes(4, 3)[:127], float("nan")]
    return _look_up(table, codes)


def to_e5m2(x: Tensor) -> Tensor:
    """The code of the nearest E5M2 number: sign, 5 bits of exponent (bias 15), 2 of mantissa.

    x: any shape, a floating dtype. Halves go to the even code. Numbers below 2**-14 have a fixed
    step of 2**-16. What would round beyond 57344 (61440 and up) becomes infinity, code 124; NaN is
    code 127; both keep x's sign. Returns uint8 codes of x's shape.
    """
    size = x.float().abs()
    mantissa, exponent = torch.frexp(size)
    normal = (mantissa * 8).round() + (exponent + 13) * 4
    code = torch.where(size < 2 ** -14, (size * 2 ** 16).round(), normal)
    code = torch.where(size < 61440, code, 124.0)
    code = torch.where(size.isnan(), 127.0, code)
    return (code + 128 * x.signbit()).to(torch.uint8)


def from_e5m2(codes: Tensor) -> Tensor:
    """The numbers that E5M2 codes stand for: float32, of the codes' shape (uint8)."""
    table = [*magnitudes(5, 2)[:124], float("inf"), *[float("nan")] * 3]
    return _look_up(table, codes)


def magnitudes(exponent_bits: int, mantissa_bits: int) -> list[float]:
    """Every number of a small float that is not negative, in the order of the codes.

    No code is taken for infinity or NaN here: those of a format are its last ones.
    """
    bias = 2 ** (exponent_bits - 1) - 1
    steps = 2 ** mantissa_bits
    numbers = [m / steps * 2.0 ** (1 - bias) for m in range(steps)]  # subnormal, with 0
    for e in range(1, 2 ** exponent_bits):
        numbers += [(1 + m / steps) * 2.0 ** (e - bias) for m in range(steps)]
    return numbers


def round_to(x: Tensor, exponent_bits: int, mantissa_bits: int,
             largest: float | None = None) -> Tensor:
    """x rounded to the nearest number of a small float; what is larger becomes the largest number.

    x: any shape. Halves go to the even mantissa; NaN stays. largest: by default the largest number
    when the last exponent is kept for infinity and NaN, as in float16. Returns float32.
    """
    if not (2 <= exponent_bits <= 8 and 0 <= mantissa_bits <= 23):
        raise ConfigError(f"A float of {exponent_bits} exponent and {mantissa_bits} mantissa bits "
                          "is outside what float32 can hold: choose 2 to 8, and 0 to 23.")
    bias = 2 ** (exponent_bits - 1) - 1
    if largest is None:
        largest = (2 - 2.0 ** -mantissa_bits) * 2.0 ** (2 ** exponent_bits - 2 - bias)
    exponent = torch.frexp(x.double()).exponent - 1
    step = torch.exp2((exponent.clamp(min=1 - bias) - mantissa_bits).double())
    return ((x.double() / step).round() * step).clamp(-largest, largest).float()


def _look_up(table: list[float], codes: Tensor) -> Tensor:
    """Magnitudes of the codes' low seven bits, with the sign of the eighth."""
    sizes = torch.tensor(table, device=codes.device)[(codes & 127).long()]
    return torch.where(codes >= 128, -sizes, sizes)
