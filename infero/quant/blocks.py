"""Four- and eight-bit formats in blocks: GGUF's, NF4, and the microscaling formats (chapter 5).

The GGUF formats Q4_0, Q4_1 and Q8_0 are here byte by byte, as llama.cpp stores them: `encode` and
`decode`. The others are here as functions from numbers to the nearest numbers they can hold:

    nf4                      levels at quantiles of a normal distribution (QLoRA, arXiv:2305.14314)
    mxfp4, mxfp8, mxint8     a power of two for each 32 numbers (OCP MX specification 1.0, 2023;
                             arXiv:2310.10537)
    nvfp4                    an E4M3 scale for each 16 numbers, a float32 scale for the tensor
                             (arXiv:2509.25149)

Every function works on the last axis of a tensor of any shape, on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from infero.errors import ConfigError

GGUF_BLOCK = 32  # numbers in a block of Q4_0, Q4_1 and Q8_0
MX_BLOCK = 32
NVFP4_BLOCK = 16


def _blocks(x: Tensor, size: int) -> Tensor:
    """[..., n] as float32 blocks [..., n / size, size]."""
    if x.shape[-1] % size or x.shape[-1] == 0:
        raise ConfigError(f"A row of {x.shape[-1]} numbers does not divide into blocks of {size}: "
                          f"pad it to a multiple of {size}, or choose another format.")
    return x.float().unflatten(-1, (-1, size))


def _inverse(d: Tensor) -> Tensor:
    """1 / d, and 0 where d is 0."""
    return torch.where(d == 0, 0.0, 1 / d)


# ---------------------------------------------------------------- GGUF, byte by byte


def encode(x: Tensor, kind: str) -> Tensor:
    """Numbers as the bytes of a GGUF block format.

    x: [..., n] with n a multiple of 32; kind: "Q4_0", "Q4_1" or "Q8_0". Returns [..., n / 32 *
    bytes a block] uint8. A block is its float16 scale d, for Q4_1 its float16 minimum m, then the
    codes: of 4-bit codes, byte j holds number j in its low half and number j + 16 in its high one.
    """
    blocks, head = _blocks(x, GGUF_BLOCK), []
    if kind == "Q4_0":
        at = blocks.abs().argmax(dim=-1, keepdim=True)
        d = blocks.gather(-1, at) / -8  # the largest number becomes code 0, with its sign
        codes, head = (blocks * _inverse(d) + 8.5).trunc(), [d]
    elif kind == "Q4_1":
        low = blocks.amin(dim=-1, keepdim=True)
        d = (blocks.amax(dim=-1, keepdim=True) - low) / 15
        codes, head = ((blocks - low) * _inverse(d) + 0.5).trunc(), [d, low]
    elif kind == "Q8_0":
        d = blocks.abs().amax(dim=-1, keepdim=True) / 127
        scaled = blocks * _inverse(d)
        codes, head = (scaled.abs() + 0.5).floor() * scaled.sign(), [d]  # halves away from zero
        codes = codes.to(torch.int8)
    else:
        raise ConfigError(_unknown(kind))
    if kind != "Q8_0":
        codes = join_nibbles(codes.clamp(0, 15).to(torch.uint8))
    halves = [h.to(torch.float16).view(torch.uint8) for h in head]
    return torch.cat((*halves, codes.view(torch.uint8)), dim=-1).flatten(-2)


def join_nibbles(codes: Tensor) -> Tensor:
    """Two 4-bit codes to a byte, in the order of GGUF's blocks.

    codes: [..., 32] uint8, each 0 to 15. Returns [..., 16] uint8: byte j holds code j in its low
    four bits and code j + 16 in its high four.
    """
    return codes[..., :16] | codes[..., 16:] << 4


def decode(data: Tensor, kind: str) -> Tensor:
    """The numbers that the bytes of a GGUF block format stand for.

    data: [..., blocks * bytes a block] uint8, as `encode` returns them. Returns [..., blocks * 32]
    float32: d * (code - 8) for Q4_0, d * code + m for Q4_1, d * code for Q8_0.
    """
    if kind == "Q4_1":
        return decode_q4_1(data)
    if kind not in ("Q4_0", "Q8_0"):
        raise ConfigError(_unknown(kind))
    blocks = data.contiguous().unflatten(-1, (-1, 18 if kind == "Q4_0" else 34))
    d, rest = blocks[..., :2].contiguous().view(torch.float16).float(), blocks[..., 2:]
    if kind == "Q4_0":
        codes = torch.cat((rest & 15, rest >> 4), dim=-1).float() - 8
    else:
        codes = rest.contiguous().view(torch.int8).float()
    return (d * codes).flatten(-2)


def decode_q4_1(data: Tensor) -> Tensor:
    """The numbers that the bytes of Q4_1 blocks stand for.

    data: [..., n * 20] uint8. A block of 20 bytes is a float16 scale d (bytes 0 and 1), a float16
    minimum m (bytes 2 and 3), and 16 bytes of codes: byte j of these holds code j in its low four
    bits and code j + 16 in its high four. Returns [..., n * 32] float32: d * code + m.
    """
    blocks = data.contiguous().unflatten(-1, (-1, 20))
    head = blocks[..., :4].contiguous().view(torch.float16).float()  # [..., n, 2]
    pairs = blocks[..., 4:]
    codes = torch.cat((pairs & 15, pairs >> 4), dim=-1).float()
    return (head[..., :1] * codes + head[..., 1:]).flatten(-2)


def _unknown(kind: str) -> str:
    return (f"There is no block format {kind!r} here; there are Q4_0, Q4_1 and Q8_0 to encode and "
            f"decode, and {', '.join(FORMATS)} to round to.")


# ---------------------------------------------------------------- NF4


@lru_cache(maxsize=1)
def nf4_levels() -> tuple[float, ...]:
    """The sixteen levels of NF4, in order, from -1 to 1 with an exact 0.

    A normal distribution is cut at probabilities that are evenly spaced from an outer one to the
    middle: eight steps below zero take seven levels, eight above take eight, and the whole is
    scaled to end at 1. The outer probability is the mean of what 15 and 16 equal bins would give
    their outer halves: 1 - (1/30 + 1/32) / 2.
    """
    outer = 1 - (1 / 30 + 1 / 32) / 2
    above = torch.special.ndtri(torch.linspace(outer, 0.5, 9, dtype=torch.float64))[:-1]
    below = -torch.special.ndtri(torch.linspace(outer, 0.5, 8, dtype=torch.float64))[:-1]
    levels = torch.cat((below, torch.zeros(1, dtype=torch.float64), above.flip(0)))
    return tuple((levels / levels[-1]).tolist())


def nf4(x: Tensor, block: int = 64) -> Tensor:
    """Each number at the nearest of NF4's levels, times its block's largest magnitude.

    x: [..., n] with n a multiple of `block`. Returns the same shape and dtype.
    """
    blocks = _blocks(x, block)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    levels = torch.tensor(nf4_levels(), device=x.device, dtype=torch.float32)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(blocks * _inverse(largest), middles)
    return (levels[codes] * largest).flatten(-2).to(x.dtype)


# ---------------------------------------------------------------- microscaling


@dataclass(frozen=True)
class Element:
    """A small floating-point number: sign, exponent, mantissa, no infinity used."""

    mantissa: int  # bits after the point
    least: int  # the exponent of the smallest normal number
    most: int  # the exponent of the largest number
    largest: float


E2M1 = Element(mantissa=1, least=0, most=2, largest=6.0)
E4M3 = Element(mantissa=3, least=-6, most=8, largest=448.0)
E5M2 = Element(mantissa=2, least=-14, most=15, largest=57344.0)


def round_to(x: Tensor, element: Element) -> Tensor:
    """Each number at the nearest one that `element` has, halves to even, too large ones cut."""
    exponent = torch.frexp(x).exponent.clamp(min=element.least + 1) - 1
    step = torch.ldexp(torch.ones_like(x), exponent - element.mantissa)
    return (torch.round(x / step) * step).clamp(-element.largest, element.largest)


def _power_of_two(blocks: Tensor, most: int) -> Tensor:
    """The shared E8M0 scale: 2 ** (exponent of the largest magnitude - `most`), [..., 1]."""
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    exponent = torch.frexp(largest).exponent - 1 - most
    return torch.ldexp(torch.ones_like(largest), exponent.clamp(-127, 127))


def mxfp4(x: Tensor) -> Tensor:
    """OCP MXFP4: E2M1 numbers (0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives), 32 to a scale."""
    return _mx(x, E2M1)


def mxfp8(x: Tensor, element: Element = E4M3) -> Tensor:
    """OCP MXFP8: E4M3 or E5M2 numbers, 32 to a power-of-two scale."""
    return _mx(x, element)


def _mx(x: Tensor, element: Element) -> Tensor:
    blocks = _blocks(x, MX_BLOCK)
    scale = _power_of_two(blocks, element.most)
    return (round_to(blocks / scale, element) * scale).flatten(-2).to(x.dtype)


def mxint8(x: Tensor) -> Tensor:
    """OCP MXINT8: whole multiples of 1/64 from -127/64 to 127/64, 32 to a power-of-two scale."""
    blocks = _blocks(x, MX_BLOCK)
    scale = _power_of_two(blocks, 0) / 64
    return (torch.round(blocks / scale).clamp(-127, 127) * scale).flatten(-2).to(x.dtype)


def nvfp4(x: Tensor) -> Tensor:
    """NVFP4: E2M1 numbers, an E4M3 scale for each 16, and one float32 scale for the tensor.

    The tensor's scale makes the largest block's E4M3 scale 448, so that none overflows.
    """
    blocks = _blocks(x, NVFP4_BLOCK)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    whole = largest.amax() / (E2M1.largest * E4M3.largest)
    scale = round_to(largest / E2M1.largest * _inverse(whole), E4M3) * whole
    return (round_to(blocks * _inverse(scale), E2M1) * scale).flatten(-2).to(x.dtype)


# ---------------------------------------------------------------- all of them


def _through(kind: str) -> Callable[[Tensor], Tensor]:
    return lambda x: decode(encode(x, kind), kind).to(x.dtype)


# name: (function to the nearest representable numbers, bits a weight with the scales)
FORMATS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "Q4_0": (_through("Q4_0"), 4.5),
    "Q4_1": (_through("Q4_1"), 5.0),
    "Q8_0": (_through("Q8_0"), 8.5),
    "NF4": (nf4, 4.25),  # a bfloat16 scale for 64; QLoRA's float32 would be 4.5
    "MXFP4": (mxfp4, 4.25),
    "NVFP4": (nvfp4, 4.5),
    "MXINT8": (mxint8, 8.25),
    "MXFP8": (mxfp8, 8.25),
}
