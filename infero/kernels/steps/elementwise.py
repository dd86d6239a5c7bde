"""SwiGLU, RMSNorm, softmax and RoPE in Triton, each in its simplest form: chapter 13, lab 13.

One program of a kernel handles one row, in one block that is as wide as the next power of two, so
each value is read from memory once and written once, whatever happens to it in between. Arithmetic
is float32 and is rounded once, where it is stored. The finished kernels, tuned for every shape, are
in `norms.py`, `activations.py` and `rotary.py`. (Fusing rows this way: Tillet, Kung and Cox, MAPL
2019; online versions for rows wider than a block are chapter 14.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infero.kernels.language import tl, triton

if TYPE_CHECKING:
    from infero.kernels.examples import Example


@triton.jit
def swiglu_kernel(gate, up, out, n, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < n
    g = tl.load(gate + row * stride + columns, mask=inside).to(tl.float32)
    u = tl.load(up + row * stride + columns, mask=inside).to(tl.float32)
    tl.store(out + row * n + columns, g * tl.sigmoid(g) * u, mask=inside)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, where silu(g) = g * sigmoid(g), in one pass over memory.

    gate, up: [tokens, n] with any number of tokens and features n. They may be the two halves of a
    wider tensor: the numbers of a row lie side by side, and row r of either begins
    r * gate.stride(0) numbers after row 0. Arithmetic is float32. Returns a new contiguous tensor
    [tokens, n] in the dtype of gate.
    """
    tokens, n = gate.shape
    out = torch.empty(tokens, n, dtype=gate.dtype, device=gate.device)
    BLOCK = 1024
    grid = (tokens, triton.cdiv(n, BLOCK))
    swiglu_kernel[grid](gate, up, out, n, gate.stride(0), BLOCK=BLOCK)
    return out


@triton.jit
def rms_norm_kernel(x, weight, out, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < n
    values = tl.load(x + row * n + columns, mask=inside, other=0.0).to(tl.float32)
    mean_square = tl.sum(values * values) / n
    w = tl.load(weight + columns, mask=inside).to(tl.float32)
    normed = values * tl.rsqrt(mean_square + eps)
    tl.store(out + row * n + columns, normed * w, mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide each row of x by its root mean square and multiply by weight, one program a row.

    x: [tokens, n] or any shape whose last axis is the n features; weight: [n]. Under the root, eps
    is added to the mean of squares. Arithmetic is float32. Returns a new tensor of the shape and
    dtype of x.
    """
    n = x.shape[-1]
    rows = x.reshape(-1, n).contiguous()
    out = torch.empty_like(rows)
    rms_norm_kernel[(len(rows),)](rows, weight, out, n, eps, BLOCK=triton.next_power_of_2(n))
    return out.view(x.shape)


@triton.jit
def softmax_kernel(x, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < n
    values = tl.load(x + row * n + columns, mask=inside, other=-float("inf"))
    values = values.to(tl.float32)
    weights = tl.exp(values - tl.max(values))
    tl.store(out + row * n + columns, weights / tl.sum(weights), mask=inside)


def softmax(x: Tensor) -> Tensor:
    """The softmax of each row: exp(x - largest) over the row's sum of them, one program a row.

    x: [rows, n], contiguous; entries may be -inf, but no row is -inf everywhere. Arithmetic is
    float32. Returns a new tensor of the shape and dtype of x, whose rows sum to 1.
    """
    rows, n = x.shape
    out = torch.empty_like(x)
    softmax_kernel[(rows,)](x, out, n, BLOCK=triton.next_power_of_2(n))
    return out


@triton.jit
def rope_kernel(x, positions, inv_freq, out, heads, half, stride, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    pair = tl.arange(0, BLOCK)
    inside = pair < half
    freq = tl.load(inv_freq + pair, mask=inside)
    angle = tl.load(positions + token).to(tl.float32) * freq
    cos, sin = tl.cos(angle), tl.sin(angle)
    source = x + token * stride + head * 2 * half + pair
    a = tl.load(source, mask=inside).to(tl.float32)
    b = tl.load(source + half, mask=inside).to(tl.float32)
    target = out + (token * heads + head) * 2 * half + pair
    tl.store(target, a * cos - b * sin, mask=inside)
    tl.store(target + half, b * cos + a * sin, mask=inside)


def rope(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """Rotate the pairs (i, i + dim/2) of every head by positions * inv_freq[i].

    x: [tokens, heads, dim]; the heads of a token lie side by side, and token t begins
    t * x.stride(0) numbers after token 0. positions: [tokens], integers; inv_freq: [dim / 2],
    float32. Angles and arithmetic are float32. Returns a new contiguous tensor of the shape and
    dtype of x.
    """
    tokens, heads, dim = x.shape
    out = torch.empty(tokens, heads, dim, dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(dim // 2)
    rope_kernel[(tokens, heads)](x, positions, inv_freq, out, heads, dim // 2, x.stride(0),
                                 BLOCK=block)
    return out


@triton.jit
def rope_token_kernel(x, positions, inv_freq, out, heads, half, stride,
                      HEADS: tl.constexpr, HALF: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (pair < half)
    freq = tl.load(inv_freq + pair, mask=pair < half)
    angle = tl.load(positions + token).to(tl.float32) * freq  # [1, HALF]
    cos, sin = tl.cos(angle), tl.sin(angle)
    at = head * 2 * half + pair
    a = tl.load(x + token * stride + at, mask=inside).to(tl.float32)
    b = tl.load(x + token * stride + at + half, mask=inside).to(tl.float32)
    target = out + token * heads * 2 * half + at
    tl.store(target, a * cos - b * sin, mask=inside)
    tl.store(target + half, b * cos + a * sin, mask=inside)


def rope_by_token(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """`rope` with one program a token: a block of [heads, pairs], sines once for all heads."""
    tokens, heads, dim = x.shape
    out = torch.empty(tokens, heads, dim, dtype=x.dtype, device=x.device)
    rope_token_kernel[(tokens,)](x, positions, inv_freq, out, heads, dim // 2, x.stride(0),
                                 HEADS=triton.next_power_of_2(heads),
                                 HALF=triton.next_power_of_2(dim // 2))
    return out


def examples() -> list[Example]:
    """One call of each kernel, for the test that compiles them without a GPU."""
    from infero.kernels.examples import Example

    return [
        Example(swiglu_kernel, {"gate": "*fp16", "up": "*fp16", "out": "*fp16", "n": "i32",
                                "stride": "i32", "BLOCK": "constexpr"}, {"BLOCK": 1024}),
        Example(rms_norm_kernel, {"x": "*fp16", "weight": "*fp16", "out": "*fp16", "n": "i32",
                                  "eps": "fp32", "BLOCK": "constexpr"}, {"BLOCK": 4096}),
        Example(softmax_kernel, {"x": "*fp16", "out": "*fp16", "n": "i32", "BLOCK": "constexpr"},
                {"BLOCK": 4096}),
        Example(rope_kernel, {"x": "*fp16", "positions": "*i64", "inv_freq": "*fp32",
                              "out": "*fp16", "heads": "i32", "half": "i32", "stride": "i32",
                              "BLOCK": "constexpr"}, {"BLOCK": 64}),
        Example(rope_token_kernel, {"x": "*fp16", "positions": "*i64", "inv_freq": "*fp32",
                                    "out": "*fp16", "heads": "i32", "half": "i32",
                                    "stride": "i32", "HEADS": "constexpr", "HALF": "constexpr"},
                {"HEADS": 64, "HALF": 64}),
    ]
