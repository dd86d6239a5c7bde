"""What stands before a large product of quantized numbers: unpacking weights, rounding activations.

With hundreds of tokens a product is bound by arithmetic and no longer by reading the weight. It is
then cheapest to unpack the weight once, into a matrix that lives for one product, and leave the
product to cuBLAS; or, with FP8 on both sides, to round the activations too, row by row, and let the
tensor cores multiply bytes at twice the rate (W8A8, arXiv:2209.05433). Chapter 15.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.kernels import formats
from infero.kernels.examples import Example
from infero.kernels.formats import Int4Weight
from infero.kernels.language import tl, triton

LARGEST = tl.constexpr(formats.FP8_LARGEST)
LEVELS = tl.constexpr(127.0)
NEAREST = tl.constexpr(1.5 * 2.0**23)  # float32 has no fractions from here on


@triton.jit
def _unpack_int4(words, scales, zeros, out, rows, K, row_words, groups, GROUP: tl.constexpr,
                 ZEROS: tl.constexpr, BLOCK_N: tl.constexpr):
    """A block of 128 inputs of BLOCK_N rows: 16-bit words to numbers of out's type."""
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    block, j = tl.program_id(1), tl.arange(0, 32)
    there = (row < rows)[:, None]
    row = row.to(tl.int64)
    word = tl.load(words + row[:, None] * row_words + block * 32 + j[None, :], mask=there, other=0)
    for i in tl.static_range(4):
        group = tl.minimum((block * 128 + i * 32) // GROUP, groups - 1)
        at = row * groups + group
        scale = tl.load(scales + at, mask=row < rows, other=0.0).to(tl.float32)
        number = ((word >> (4 * i)) & 15).to(tl.float32)
        if ZEROS:
            zero = tl.load(zeros + at, mask=row < rows, other=0.0).to(tl.float32)
            number = number - zero[:, None]
        else:
            number = number - 8.0
        k = block * 128 + i * 32 + j
        tl.store(out + row[:, None] * K + k[None, :],
                 (number * scale[:, None]).to(out.dtype.element_ty), mask=there & (k < K)[None, :])


@triton.jit
def _scale_rows(values, scales, out, K, BLOCK: tl.constexpr):
    """out[row] = values[row] * scales[row], BLOCK inputs a program."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(values + row * K + k, mask=k < K, other=0.0).to(tl.float32)
    number = number * tl.load(scales + row)
    tl.store(out + row * K + k, number.to(out.dtype.element_ty), mask=k < K)


@triton.jit
def _round_rows(x, out, scales, K, stride, BLOCK: tl.constexpr, INT8: tl.constexpr):
    """One row of x to fp8 or int8, over the largest of its absolute values."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    number = tl.load(x + row * stride + k, mask=k < K, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(number), 0)
    if INT8:
        scale = tl.where(largest > 0, tl.div_rn(largest, LEVELS), 1.0)
        number = tl.div_rn(number, scale) + NEAREST - NEAREST  # halves to the even number
    else:
        scale = tl.maximum(largest, 1e-12) / LARGEST
        number = number / scale
    tl.store(scales + row, scale)
    tl.store(out + row * K + k, number.to(out.dtype.element_ty), mask=k < K)


def dequantize(weight: formats.Quantized) -> Tensor:
    """As the weight's own `dequantize`, in one launch: [out, in]."""
    n, k = weight.shape
    out = torch.empty((n, k), dtype=weight.dtype, device=weight.device)
    if isinstance(weight, Int4Weight):
        words = weight.words.view(torch.int16)
        blocks = words.shape[1] // 32
        _unpack_int4[(-(-n // 64), blocks)](
            words, weight.scales, weight.scales if weight.zeros is None else weight.zeros, out, n,
            k, words.shape[1], weight.scales.shape[1], GROUP=weight.group,
            ZEROS=weight.zeros is not None, BLOCK_N=64, num_warps=4)
    else:
        _scale_rows[(n, -(-k // 4096))](weight.values, weight.scales, out, k, BLOCK=4096,
                                        num_warps=4)
    return out


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: [tokens, in]. Returns it in fp8 and a scale a row, [tokens] float32."""
    return _rounded(x, torch.float8_e4m3fn)


def to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: [tokens, in]. Returns it in int8, -127 to 127, and a scale a row, [tokens] float32."""
    return _rounded(x, torch.int8)


def _rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    tokens, k = x.shape
    out = torch.empty((tokens, k), dtype=dtype, device=x.device)
    scales = torch.empty(tokens, dtype=torch.float32, device=x.device)
    block = max(1 << (k - 1).bit_length(), 16)
    _round_rows[(tokens,)](x, out, scales, k, x.stride(0), BLOCK=block,
                           INT8=dtype is torch.int8, num_warps=16 if block >= 8192 else 4)
    return out, scales


def examples() -> list[Example]:
    """One call of each kernel, for the compiler."""
    sizes = {"rows": "i32", "K": "i32", "row_words": "i32", "groups": "i32"}
    return [
        Example(_unpack_int4, {"words": "*i16", "scales": "*fp16", "zeros": "*fp16",
                               "out": "*fp16", **sizes, "GROUP": "constexpr",
                               "ZEROS": "constexpr", "BLOCK_N": "constexpr"},
                {"GROUP": 64, "ZEROS": True, "BLOCK_N": 64}, aligned=("K", "row_words")),
        Example(_scale_rows, {"values": "*i8", "scales": "*fp32", "out": "*fp16", "K": "i32",
                              "BLOCK": "constexpr"}, {"BLOCK": 4096}, aligned=("K",)),
        Example(_round_rows, {"x": "*bf16", "out": "*fp8e4nv", "scales": "*fp32", "K": "i32",
                              "stride": "i32", "BLOCK": "constexpr", "INT8": "constexpr"},
                {"BLOCK": 4096, "INT8": False}, least=(9, 0), aligned=("K", "stride")),
        Example(_round_rows, {"x": "*fp16", "out": "*i8", "scales": "*fp32", "K": "i32",
                              "stride": "i32", "BLOCK": "constexpr", "INT8": "constexpr"},
                {"BLOCK": 4096, "INT8": True}, aligned=("K", "stride")),
    ]
