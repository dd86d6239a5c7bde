"""Eight-bit activations: one scale a token, products of whole numbers, sums in 32 bits.

A tensor core multiplies bytes twice as fast as 16-bit floats, if both sides are bytes. The weight
is rounded once; the activations at every step, with a scale of their own for each token ("dynamic",
ZeroQuant, arXiv:2206.01861) or with one found beforehand ("static"). Chapter 4.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

EXACT = 2 ** 24 // 127 ** 2  # inputs whose sum of products a float32 holds without rounding
PAD = 8  # cuBLASLt takes inputs and outputs in multiples of this, and more than 16 tokens


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each token's activations to whole numbers from -127 to 127, with a scale of its own.

    x: [tokens, in]. A token's largest magnitude lands on 127; halves go to the even number; a token
    of zeros gets scale 1. Returns values [tokens, in] int8 and scales [tokens] float32, so that
    values * scales[:, None] is close to x.
    """
    x = x.float()
    largest = x.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (x / scales[:, None]).round().to(torch.int8), scales


def quantize_static(x: Tensor, scale: Tensor | float) -> Tensor:
    """Round activations with a scale found beforehand: what lies outside the range is clipped.

    x: [tokens, in]. Returns int8, -127 .. 127, of x's shape.
    """
    return (x.float() / scale).round().clamp(-127, 127).to(torch.int8)


def multiply(tokens: Tensor, token_scales: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    """The product of rounded activations with a rounded weight, transposed.

    tokens: [tokens, in] int8 and token_scales: [tokens] float32, as `quantize_tokens` gives them;
    values: [out, in] int8 and scales: [out] float32, one a row of the weight. Neither scale depends
    on the input channel, so both leave the sum, and the sum is one of whole numbers: exact, and far
    too large for eight bits. Returns [tokens, out] float32.
    """
    sums = accumulate(tokens, values)  # [tokens, out] int32
    return sums.float() * token_scales[:, None] * scales


def linear_w8a8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times a rounded weight transposed, with x rounded too, token by token.

    x: [tokens, in]; values: [out, in] int8; scales: [out] float32, of the weight's rows; bias:
    [out]. Returns [tokens, out] in x's dtype.
    """
    y = multiply(*quantize_tokens(x), values, scales)
    return (y if bias is None else y + bias.float()).to(x.dtype)


def accumulate(a: Tensor, b: Tensor) -> Tensor:
    """The exact product a times b transposed: a [m, in], b [n, in] int8; result [m, n] int32."""
    if a.shape[0] == 0:
        return torch.zeros(0, b.shape[0], dtype=torch.int32, device=a.device)
    if a.is_cuda:
        return _on_cuda(a, b)
    if a.device.type == "cpu" and bytes_add_up():
        return torch._int_mm(a, b.t())
    wide = torch.float32 if a.shape[1] <= EXACT else torch.float64
    return (a.to(wide) @ b.to(wide).t()).to(torch.int32)


def _on_cuda(a: Tensor, b: Tensor) -> Tensor:
    """torch._int_mm, with what cuBLASLt asks for: more than 16 rows, widths in multiples of 8."""
    m, inputs = a.shape
    n = b.shape[0]
    more = -inputs % PAD
    a = torch.nn.functional.pad(a, (0, more, 0, max(-m % PAD, 17 + PAD - 1 - m) if m < 17 else 0))
    if more or n % PAD:
        b = torch.nn.functional.pad(b, (0, more, 0, -n % PAD))
    return torch._int_mm(a.contiguous(), b.t())[:m, :n]


@functools.cache
def bytes_add_up() -> bool:
    """Whether this processor's product of bytes is exact.

    Without VNNI instructions x86 adds pairs of products in 16 bits, which saturate: torch._int_mm
    is then wrong as soon as the values are large. Found out by trying.
    """
    a = torch.full((2, 256), 127, dtype=torch.int8)
    b = torch.full((64, 256), 127, dtype=torch.int8)
    b[::2] = -127
    try:
        return torch.equal(torch._int_mm(a, b.t()), (a.int() @ b.int().t()))
    except RuntimeError:
        return False
