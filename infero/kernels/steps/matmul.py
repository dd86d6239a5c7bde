"""Quantized matrix products, version by version: the kernels that Lab 15 has the learner write.

Weights stay in 8 or 4 bits in memory and become numbers only in registers. `int8_matvec` and
`int4_matmul` are the lab's two kernels. `int4_matvec` is what comes before them, and `int4_once`
and `int4_split` what comes after. The
engine's own kernels are in `infero/kernels/matmul.py`; `linear` here serves an engine that was
asked for kernels="steps". Chapter 15 tells the way from the first to the last, after Marlin
(Frantar et al., arXiv:2408.11743); the bit trick is from Kim et al. (arXiv:2211.10017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.kernels.examples import Example
from infero.kernels.language import tl, triton

#: Bits 4p to 4p + 3 of a word hold weight ORDER[p] of its eight: shifting the word by 4k puts the
#: neighbours 2k and 2k + 1 into the lowest bits of its two halves.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
#: Tokens up to which one kernel a token beats unpacking the whole weight (8 bits).
FEW_TOKENS = 4


@dataclass(frozen=True)
class Int4:
    """A 4-bit weight of the lab: (nibble - zero) * scale, one scale and zero for each group.

    words: [out, in / 8] int32 as `pack_nibbles` makes them; scales and zeros: [out, groups]
    float32. A group is in / groups inputs that follow each other.
    """

    words: Tensor
    scales: Tensor
    zeros: Tensor

    @property
    def group(self) -> int:
        return 8 * self.words.shape[1] // self.scales.shape[1]


@dataclass(frozen=True)
class Card:
    """The three limits of a GPU that a product of quantized weights meets."""

    bandwidth_bytes_per_s: float
    flops_per_s: float  # of the tensor cores, in the activations' format
    instructions_per_s: float  # of single threads, whatever they do


#: NVIDIA H100 SXM, datasheet: 132 SMs, each starting 4 instructions of 32 threads a cycle.
H100 = Card(3.35e12, 989.4e12, 132 * 4 * 32 * 1.98e9)
#: What `int4_matmul` executes for each weight on an H100, counted in its machine code.
INSTRUCTIONS = 13.5


# ---------------------------------------------------------------- exercises 1 and 2: the format


def pack_nibbles(values: Tensor) -> Tensor:
    """Pack 4-bit values, eight into each 32-bit word.

    values: [out, in] uint8, each 0 to 15, with `in` a multiple of 8. Returns words [out, in / 8]
    int32. The eight values 8j to 8j + 7 of a row go into its word j: bits 4p to 4p + 3 (bit 0 is
    the least significant) hold value 8j + ORDER[p], with ORDER = (0, 2, 4, 6, 1, 3, 5, 7).
    """
    lanes = values.view(values.shape[0], -1, 8)[..., list(ORDER)].to(torch.int32)
    shifts = 4 * torch.arange(8, dtype=torch.int32, device=values.device)
    return (lanes << shifts).sum(-1, dtype=torch.int32)


def unpack_nibbles(words: Tensor) -> Tensor:
    """The values in packed words, as float16, by bit operations and one subtraction.

    words: [out, in / 8] int32 from `pack_nibbles`. Returns [out, in] float16 holding exactly 0 to
    15, in the order of the inputs. No integer is converted: each shift by 4k, for k = 0 to 3, puts
    two values into bits 0-3 and 16-19; with 0x6400 above each of them the word is two float16
    numbers, 1024 + value.
    """
    pairs = [((words >> 4 * k) & 0x000F000F | 0x64006400) for k in range(4)]
    halves = torch.stack(pairs, dim=-1).view(torch.float16)  # [out, in / 8, 8]
    return halves.flatten(1) - 1024


def dequantize(weight: Int4, dtype: torch.dtype) -> Tensor:
    """The whole weight as numbers: [out, in]."""
    values = unpack_nibbles(weight.words).float().unflatten(1, (weight.scales.shape[1], -1))
    return ((values - weight.zeros[:, :, None]) * weight.scales[:, :, None]).flatten(1).to(dtype)


# ---------------------------------------------------------------- exercise 3: eight bits


@triton.jit
def int8_matvec_kernel(x, values, scales, y, out, inner,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    token = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for start in range(0, inner, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        numbers = tl.load(x + token * inner + k, mask=k < inner, other=0.0).to(tl.float32)
        inside = (n[:, None] < out) & (k[None, :] < inner)
        w = tl.load(values + n[:, None] * inner + k[None, :], mask=inside, other=0)
        total += tl.sum(w.to(tl.float32) * numbers[None, :], axis=1)
    scale = tl.load(scales + n, mask=n < out, other=0.0)
    tl.store(y + token * out + n, total * scale, mask=n < out)


def int8_matvec(x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    """x times a weight of 8-bit integers with one scale for each output.

    x: [tokens, in] float32, float16 or bfloat16; values: [out, in] int8; scales: [out] float32; all
    contiguous. Returns [tokens, out] in x's dtype: y[t, n] = scales[n] * sum over k of
    x[t, k] * values[n, k]. Products and sums are float32, and the scale is applied once, to the
    sum. Neither `out` nor `in` need be a multiple of a block.
    """
    (tokens, inner), out = x.shape, values.shape[0]
    y = x.new_empty(tokens, out)
    block_n, block_k = 16, 128 if x.device.type == "cpu" else 512
    grid = (triton.cdiv(out, block_n), tokens)
    int8_matvec_kernel[grid](x, values, scales, y, out, inner, block_n, block_k)
    return y


# ---------------------------------------------------------------- exercise 4: four bits


@triton.jit
def int4_matmul_kernel(x, words, scales, zeros, y, tokens, out, inner, group,
                       BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WORDS: tl.constexpr):
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, inner // 8, WORDS):
        j = start + tl.arange(0, WORDS)  # words of a row; word j holds the inputs from 8 j on
        inside = (j[:, None] < inner // 8) & (n < out)
        word = tl.load(words + n * (inner // 8) + j[:, None], mask=inside, other=0)
        at = n * (inner // group) + 8 * j[:, None] // group
        zero = tl.load(zeros + at, mask=inside, other=0.0)
        scale = tl.load(scales + at, mask=inside, other=0.0)
        for p in tl.static_range(8):
            k = 8 * j[None, :] + 2 * (p % 4) + p // 4  # ORDER[p] = 2 (p % 4) + p // 4
            a = tl.load(x + m * inner + k, mask=(m < tokens) & (k < inner), other=0.0)
            nibble = (word >> 4 * p) & 0xF
            w = (nibble.to(tl.float32) - zero) * scale  # [WORDS, BLOCK_N]
            total = tl.dot(a, w.to(a.dtype), total, input_precision="ieee")
    tl.store(y + m * out + n, total, mask=(m < tokens) & (n < out))


def int4_matmul(x: Tensor, words: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """x times a weight of 4-bit groups, on the tensor cores; each word is loaded once.

    x: [tokens, in] float32, float16 or bfloat16; words: [out, in / 8] int32 as `pack_nibbles` makes
    them; scales, zeros: [out, groups] float32, where input k belongs to group k // (in / groups)
    and a group is a multiple of 8 inputs; all contiguous. Returns [tokens, out] in x's dtype: x
    times the transpose of w[n, k] = (nibble - zero) * scale, where w is rounded to x's dtype before
    the product and sums are float32. No size need be a multiple of a block.
    """
    (tokens, inner), out = x.shape, words.shape[0]
    y = x.new_empty(tokens, out)
    block_m = min(64, max(16, triton.next_power_of_2(tokens)))
    grid = (triton.cdiv(out, 32), triton.cdiv(tokens, block_m))
    int4_matmul_kernel[grid](x, words, scales, zeros, y, tokens, out, inner,
                             inner // scales.shape[1], block_m, 32, 16)
    return y


# ---------------------------------------------------------------- exercise 5: when it pays


def matmul_time_s(tokens: int, weights: float, bits: float, instructions: float, card: Card,
                  tile: int = 64) -> float:
    """Seconds that the slowest of three limits allows for a product with quantized weights.

    tokens: rows of x; weights: out * in; bits: of memory for each weight; instructions: executed
    to unpack one weight (0 for bf16). Memory reads every weight once. The tensor cores do two
    operations for each token and weight. Unpacking is done again for every tile of `tile` tokens,
    the last one possibly smaller. Reading x and writing y are neglected.
    """
    memory_s = weights * bits / 8 / card.bandwidth_bytes_per_s
    tensor_s = 2 * tokens * weights / card.flops_per_s
    unpack_s = math.ceil(tokens / tile) * weights * instructions / card.instructions_per_s
    return max(memory_s, tensor_s, unpack_s)


def crossover_batch(bits: float, instructions: float, card: Card, tile: int = 64) -> int:
    """The fewest tokens at which such weights are no faster than bf16 ones."""
    tokens = 1
    while (matmul_time_s(tokens, 1, bits, instructions, card, tile)
           < matmul_time_s(tokens, 1, 16, 0, card, tile)):
        tokens += 1
    return tokens


# ---------------------------------------------------------------- before and after the lab's


@triton.jit
def int4_matvec_kernel(x, words, scales, zeros, y, out, inner, group,
                       BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    token = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for start in range(0, inner, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)[None, :]
        inside = (n < out) & (k < inner)
        numbers = tl.load(x + token * inner + k, mask=k < inner, other=0.0).to(tl.float32)
        word = tl.load(words + n * (inner // 8) + k // 8, mask=inside, other=0)
        nibble = (word >> (4 * (k % 8 // 2) + 16 * (k % 2))) & 0xF
        at = n * (inner // group) + k // group
        zero = tl.load(zeros + at, mask=inside, other=0.0)
        scale = tl.load(scales + at, mask=inside, other=0.0)
        total += tl.sum((nibble.to(tl.float32) - zero) * scale * numbers, axis=1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tl.store(y + token * out + n, total, mask=n < out)


def int4_matvec(x: Tensor, words: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Version 1: `int8_matvec` with nibbles; no tensor cores, the weight read for each token."""
    (tokens, inner), out = x.shape, words.shape[0]
    y = x.new_empty(tokens, out)
    block_n, block_k = 16, 128 if x.device.type == "cpu" else 512
    int4_matvec_kernel[(triton.cdiv(out, block_n), tokens)](
        x, words, scales, zeros, y, out, inner, inner // scales.shape[1], block_n, block_k)
    return y


@triton.jit(do_not_specialize=["tokens", "share"])
def int4_once_kernel(x, words, scales, zeros, y, tokens, out, inner, group, share,
                     MAGIC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                     WORDS: tl.constexpr):
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    first = tl.program_id(2) * share
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(first, min(first + share, inner // 8), WORDS):
        j = start + tl.arange(0, WORDS)
        word = tl.load(words + n * (inner // 8) + j[:, None], mask=n < out, other=0)
        part = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        sums = tl.zeros((BLOCK_M, WORDS), dtype=tl.float32)
        for p in tl.static_range(8):  # nibble p is weight 2 (p % 4) + p // 4 of its word: ORDER
            k = 8 * j[None, :] + 2 * (p % 4) + p // 4
            a = tl.load(x + m * inner + k, mask=m < tokens, other=0.0)
            bits = (word >> (4 * p)) & 0xF | MAGIC
            if x.dtype.element_ty == tl.float32:
                w = bits.to(tl.float32, bitcast=True) - 8388608.0
            elif x.dtype.element_ty == tl.float16:
                w = bits.to(tl.int16).to(tl.float16, bitcast=True) - 1024.0
            else:
                w = bits.to(tl.int16).to(tl.bfloat16, bitcast=True) - 128.0
            part = tl.dot(a, w.to(a.dtype), part, input_precision="ieee")
            sums += a.to(tl.float32)
        at = n * (inner // group) + 8 * start // group  # one group: 8 WORDS divides it
        zero = tl.load(zeros + at, mask=n < out, other=0.0)
        scale = tl.load(scales + at, mask=n < out, other=0.0)
        total += (part - tl.sum(sums, axis=1)[:, None] * zero) * scale
    y += tl.program_id(2).to(tl.int64) * tokens * out
    tl.store(y + m * out + n, total, mask=(m < tokens) & (n < out))


_MAGIC = {torch.float32: 0x4B000000, torch.float16: 0x6400, torch.bfloat16: 0x4300}


def int4_once(x: Tensor, words: Tensor, scales: Tensor, zeros: Tensor, splits: int = 1) -> Tensor:
    """Version 3: nibbles become numbers by bits alone, with one scale for the sums of a group.

    The zero meets the group's sum of x. A group must be a multiple of 128 inputs.
    """
    (tokens, inner), out = x.shape, words.shape[0]
    group = inner // scales.shape[1]
    if group % 128:
        raise ValueError(f"A group of {group} inputs: this version wants a multiple of 128; use "
                         "int4_matmul.")
    y = x.new_empty(splits, tokens, out, dtype=torch.float32 if splits > 1 else x.dtype)
    block_m = min(64, max(16, triton.next_power_of_2(tokens)))
    share = 16 * triton.cdiv(inner // 128, splits)  # words, whole tiles of 16
    grid = (triton.cdiv(out, 64), triton.cdiv(tokens, block_m), splits)
    int4_once_kernel[grid](x, words, scales, zeros, y, tokens, out, inner, group, share,
                           _MAGIC[x.dtype], block_m, 64, 16)
    return y[0] if splits == 1 else y.sum(0).to(x.dtype)


def int4_split(x: Tensor, words: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Version 4: version 3 with the inputs split among programs, and their sums added after."""
    out, tiles = words.shape[0], words.shape[1] // 16
    programs = triton.cdiv(out, 64) * triton.cdiv(x.shape[0], 64)
    return int4_once(x, words, scales, zeros, splits=max(1, min(tiles, 1024 // programs)))


# ---------------------------------------------------------------- for the engine


def of(weight: Any) -> Int4 | None:
    """The lab's form of one of the engine's 4-bit weights, made once and kept with it.

    None where the inputs do not come in groups of a multiple of 8.
    """
    from infero.kernels import formats

    inner = weight.shape[1]
    group = math.gcd(inner, weight.group) if weight.group < inner else inner
    if group % 8:
        return None
    made: Int4 | None = weight.__dict__.get("_steps")
    if made is None:
        each = torch.arange(inner // group, device=weight.device) * group // weight.group
        scales, zeros = weight.scales.float()[:, each], weight.zeros
        zeros = torch.full_like(scales, 8) if zeros is None else zeros.float()[:, each]
        words = pack_nibbles(formats.unpack_int4(weight.words, inner).contiguous())
        made = weight.__dict__["_steps"] = Int4(words, scales, zeros)
    return made


def linear(x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    """x [tokens, in] times a weight of `infero.kernels.formats`, by the lab's kernels.

    Beyond the batch where a kernel pays, the weight is unpacked and given to PyTorch.
    """
    from infero.kernels import formats

    x = x.contiguous()
    packed = of(weight) if isinstance(weight, formats.Int4Weight) else None
    if packed is not None:
        if x.shape[0] < crossover_batch(4 + 64 / packed.group, INSTRUCTIONS, H100):
            y = int4_matmul(x, packed.words, packed.scales, packed.zeros)
        else:
            y = F.linear(x, dequantize(packed, x.dtype))
    elif isinstance(weight, formats.Int8Weight) and x.shape[0] <= FEW_TOKENS:
        y = int8_matvec(x, weight.values, weight.scales)
    else:
        return F.linear(x, weight if isinstance(weight, Tensor) else weight.dequantize(), bias)
    return y if bias is None else y + bias


def examples() -> list[Example]:
    """One call of each kernel, for the compiler (see `infero/kernels/examples.py`)."""
    four = {"x": "*bf16", "words": "*i32", "scales": "*fp32", "zeros": "*fp32", "y": "*bf16"}
    sizes = {"tokens": "i32", "out": "i32", "inner": "i32", "group": "i32"}
    block = {"BLOCK_M": 16, "BLOCK_N": 32, "WORDS": 16}
    even = ("out", "inner", "group")

    def constants(values: dict[str, int]) -> dict[str, str]:
        return dict.fromkeys(values, "constexpr")

    once = {"MAGIC": 0x4300, "BLOCK_M": 16, "BLOCK_N": 64, "WORDS": 16}
    one = {"BLOCK_N": 16, "BLOCK_K": 512}
    vector = {key: kind for key, kind in sizes.items() if key != "tokens"}
    return [
        Example(int8_matvec_kernel, {"x": "*bf16", "values": "*i8", "scales": "*fp32",
                                     "y": "*bf16", "out": "i32", "inner": "i32", **constants(one)},
                one, least=(8, 0), aligned=("out", "inner")),
        Example(int4_matvec_kernel, {**four, **vector, **constants(one)}, one, least=(8, 0),
                aligned=even),
        Example(int4_matmul_kernel, {**four, **sizes, **constants(block)}, block, least=(8, 0),
                aligned=even),
        Example(int4_matmul_kernel, {**four, **sizes, "x": "*fp16", "y": "*fp16",
                                     **constants(block)}, block, aligned=even),
        Example(int4_once_kernel, {**four, **sizes, "share": "i32", **constants(once)}, once,
                least=(8, 0), aligned=(*even, "share")),
    ]
