"""One token times a matrix: a kernel whose only job is to read the weight without a pause.

y[n] = sum over k of w[n, k] * x[k] does two operations for each weight it reads, so tensor cores
have nothing to add; the plain arithmetic units keep up with memory as long as little else is asked
of them. A program takes BLOCK_N rows at a time and keeps its part of x in registers. Chapter 15
builds this kernel step by step.

Every format is read as 32-bit words, which hold 1 float32, 2 half-precision numbers, 4 int8 or fp8
or 8 int4, and is taken apart in registers with as few instructions as there are. An int8 or int4
becomes a float32 without a conversion: put into the mantissa of 1.0 it is 1 + v / 2**s. The factor
goes into the scale, and the ones are taken off once for all numbers that a thread has summed.

Three things stretch it to a launch of its own for a whole line of the decoder layer. The norm
before the product costs no pass over x: every program sums the squares of the x that it reads
anyway, and divides at the end. The residual and SwiGLU work on numbers already in registers. And
with PDL (programmatic dependent launch) the kernel starts while the one before it is finishing:
it asks for its first weights, which no kernel writes, and only then waits for x.
"""

from __future__ import annotations

from typing import Any

from infero.kernels.examples import Example
from infero.kernels.language import tl, triton

FP32, BF16, FP16, INT8, FP8, INT4 = (tl.constexpr(i) for i in range(6))


@triton.jit
def _row_of(block, n_out, inter, BLOCK_N: tl.constexpr, SWIGLU: tl.constexpr, WIDE: tl.constexpr):
    """The weight's rows of a block of outputs; with SwiGLU half of them are gates, half ups.

    WIDE: in 64 bits, for a weight of 2**31 words or more; else addresses cost half as much.
    """
    r = tl.arange(0, BLOCK_N)
    if SWIGLU:
        half: tl.constexpr = BLOCK_N // 2
        row = tl.minimum(block * half + r % half, n_out - 1) + (r // half) * inter
    else:
        row = tl.minimum(block * BLOCK_N + r, n_out - 1)
    if WIDE:
        row = row.to(tl.int64)
    return row


@triton.jit
def _beside(row, block, n_out, scales, bias, residual, BLOCK_N: tl.constexpr,
            FORMAT: tl.constexpr, SWIGLU: tl.constexpr, BIAS: tl.constexpr,
            RESIDUAL: tl.constexpr):
    """Scale, bias and residual of a block's outputs: asked for early, needed in `_finish`."""
    scale = 1.0
    offset = 0.0
    before = 0.0
    if FORMAT == INT8 or FORMAT == FP8:  # noqa: SIM109
        scale = tl.load(scales + row)
    if BIAS:
        offset = tl.load(bias + row).to(tl.float32)
    if RESIDUAL:
        outputs: tl.constexpr = BLOCK_N // 2 if SWIGLU else BLOCK_N
        column = block * outputs + tl.arange(0, outputs)
        before = tl.load(residual + column, mask=column < n_out, other=0.0).to(tl.float32)
    return scale, offset, before


@triton.jit
def _finish(y, block, n_out, beside, out, BLOCK_N: tl.constexpr, FORMAT: tl.constexpr,
            SWIGLU: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """What follows the sum over k: y [BLOCK_N] float32 to its place in `out`."""
    if FORMAT == INT8:
        y = y * (beside[0] * 32768.0)
    elif FORMAT == FP8:
        y = y * beside[0]
    if BIAS:
        y = y + beside[1]
    if SWIGLU:
        half: tl.constexpr = BLOCK_N // 2
        gate, up = tl.split(tl.permute(tl.reshape(y, (2, half)), (1, 0)))
        y = gate / (1.0 + tl.exp(-gate)) * up
        column = block * half + tl.arange(0, half)
    else:
        column = block * BLOCK_N + tl.arange(0, BLOCK_N)
    if RESIDUAL:
        y = y + beside[2]
    tl.store(out + column, y.to(out.dtype.element_ty), mask=column < n_out)


@triton.jit
def _pair(x, pair, K, PAIRS: tl.constexpr):
    """Elements 2 * pair and 2 * pair + 1 of x [K], as float32.

    PAIRS: x points to int32 that hold two bf16 (1) or two fp16 (2) each, or (0) to numbers.
    """
    if PAIRS == 0:
        low = tl.load(x + 2 * pair, mask=2 * pair < K, other=0.0).to(tl.float32)
        high = tl.load(x + 2 * pair + 1, mask=2 * pair + 1 < K, other=0.0).to(tl.float32)
    else:
        both = tl.load(x + pair, mask=pair < K // 2, other=0)
        low = _half(both, 0, PAIRS)
        high = _half(both, 1, PAIRS)
    return low, high


@triton.jit
def _half(word, PART: tl.constexpr, FORMAT: tl.constexpr):
    """The lower (0) or upper (1) bf16 or fp16 of an int32, as float32."""
    if FORMAT == BF16:
        bits = (word << 16) if PART == 0 else (word & -65536)
        number = bits.to(tl.float32, bitcast=True)
    else:
        bits = word if PART == 0 else (word >> 16)
        number = bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return number


@triton.jit
def _parts(x, word, K, FORMAT: tl.constexpr, PAIRS: tl.constexpr):
    """x for the words `word` [words] of a row: a tuple of what meets each number of a word."""
    if FORMAT == BF16 or FORMAT == FP16:  # noqa: SIM109
        parts = _pair(x, word, K, PAIRS)
    elif FORMAT == FP32:
        parts = (tl.load(x + word, mask=word < K, other=0.0).to(tl.float32),)
    elif FORMAT == INT4:  # the layout of formats.py: nibbles i of two 16-bit words
        pair = word // 16 * 64 + word % 16
        a, b = _pair(x, pair, K, PAIRS)
        c, d = _pair(x, pair + 16, K, PAIRS)
        e, f = _pair(x, pair + 32, K, PAIRS)
        g, h = _pair(x, pair + 48, K, PAIRS)
        parts = (a, b, c, d, e, f, g, h)
    elif PAIRS == 0:
        a, b = _pair(x, word * 2, K, PAIRS)
        c, d = _pair(x, word * 2 + 1, K, PAIRS)
        parts = (a, b, c, d)
    else:  # four numbers at once: loads of 4 bytes that leave out every second are slow
        four = tl.load(x.to(tl.pointer_type(tl.int64)) + word, mask=word < K // 4, other=0)
        low, high = four.to(tl.int32), (four >> 32).to(tl.int32)
        parts = (_half(low, 0, PAIRS), _half(low, 1, PAIRS),
                 _half(high, 0, PAIRS), _half(high, 1, PAIRS))
    return parts


@triton.jit
def _read_x(x, weights, word, K, FORMAT: tl.constexpr, COUNT: tl.constexpr, PAIRS: tl.constexpr,
            NORM: tl.constexpr):
    """As `_parts`, times the norm's `weights`; and the sum of squares before it, [words]."""
    parts = _parts(x, word, K, FORMAT, PAIRS)
    squares = parts[0] * parts[0]
    for i in tl.static_range(1, COUNT):
        squares += parts[i] * parts[i]
    if NORM:
        if COUNT == 1:
            parts = (parts[0] * weights[0],)
        elif COUNT == 2:
            parts = (parts[0] * weights[0], parts[1] * weights[1])
        elif COUNT == 4:
            parts = (parts[0] * weights[0], parts[1] * weights[1],
                     parts[2] * weights[2], parts[3] * weights[3])
        else:
            parts = (parts[0] * weights[0], parts[1] * weights[1],
                     parts[2] * weights[2], parts[3] * weights[3],
                     parts[4] * weights[4], parts[5] * weights[5],
                     parts[6] * weights[6], parts[7] * weights[7])
    if FORMAT == INT4:  # 1 + v / 256 and 1 + v / 16 have to count alike
        parts = (parts[0] * 16.0, parts[1] * 16.0, parts[2], parts[3],
                 parts[4] * 16.0, parts[5] * 16.0, parts[6], parts[7])
    return parts, squares


# ---------------------------------------------------------------- taking words apart


@triton.jit
def _nibble(w, PART: tl.constexpr, ASM: tl.constexpr):
    """Number PART of int4 words as 1 + v / 256 (slices 0 and 2) or 1 + v / 16 (slices 1 and 3).

    Numbers 2 i and 2 i + 1 are nibble i of the lower and of the upper half of the word.
    """
    if PART < 4:
        t = (w << 15) if PART % 2 == 0 else (w >> 1)
    else:
        t = (w << 7) if PART % 2 == 0 else (w >> 9)
    mask: tl.constexpr = 0x00078000 if PART // 2 % 2 == 0 else 0x00780000
    if ASM:  # (t & mask) | one in one instruction; the compiler would make two
        code: tl.constexpr = ("lop3.b32 $0, $1, 0x00078000, 0x3F800000, 0xEA;"
                              if PART // 2 % 2 == 0 else
                              "lop3.b32 $0, $1, 0x00780000, 0x3F800000, 0xEA;")
        number = tl.inline_asm_elementwise(code, "=f,r", [t], tl.float32, is_pure=True, pack=1)
    else:
        number = ((t & mask) | 0x3F800000).to(tl.float32, bitcast=True)
    return number


@triton.jit
def _octet(w, one, PART: tl.constexpr, ASM: tl.constexpr):
    """int8 number PART of words as 1 + (v + 128) / 32768.

    `one` holds the bits of 1.0 in a register. Were it a constant of the program, the compiler would
    put it into the instruction and load the other constant, the choice of bytes, each time.
    """
    t = w ^ -2139062144  # 0x80808080: v + 128 in every byte
    if ASM:
        code: tl.constexpr = ("prmt.b32 $0, $1, $2, 0x7604;" if PART == 0 else
                              "prmt.b32 $0, $1, $2, 0x7614;" if PART == 1 else
                              "prmt.b32 $0, $1, $2, 0x7624;" if PART == 2 else
                              "prmt.b32 $0, $1, $2, 0x7634;")
        number = tl.inline_asm_elementwise(code, "=f,r,r", [t, one],
                                           tl.float32, is_pure=True, pack=1)
    else:
        bits = ((t >> (8 * PART)) & 0xFF) << 8
        number = (bits | 0x3F800000).to(tl.float32, bitcast=True)
    return number


@triton.jit
def _e4m3(w, PART: tl.constexpr):
    """fp8 number PART of words: its bits are moved into a float32 whose exponent is 120 too low."""
    t = w << (24 - 8 * PART)
    bits = (t & -2147483648) | ((t >> 4) & 0x07F00000)
    return bits.to(tl.float32, bitcast=True) * 1.329227995784916e36  # 2**120


@triton.jit
def _number(w, one, PART: tl.constexpr, FORMAT: tl.constexpr, ASM: tl.constexpr):
    """Number PART of the words w [rows, words] as float32, in the form that `_dot` undoes."""
    if FORMAT == FP32:
        number = w
    elif FORMAT == INT4:
        number = _nibble(w, PART, ASM)
    elif FORMAT == INT8:
        number = _octet(w, one, PART, ASM)
    elif FORMAT == FP8:
        number = _e4m3(w, PART)
    else:
        number = _half(w, PART, FORMAT)
    return number


@triton.jit
def _dot(w, parts, scale, zero, one, FORMAT: tl.constexpr, COUNT: tl.constexpr, EACH: tl.constexpr,
         ZEROS: tl.constexpr, ASM: tl.constexpr):
    """w [rows, words] times x, summed over the four words of a lane: [rows, words / 4].

    int4 numbers are scaled here, after EACH of the four slices that share a scale.
    """
    rows: tl.constexpr = w.shape[0]
    lanes: tl.constexpr = w.shape[1] // 4
    total = tl.zeros((rows, lanes), tl.float32)
    for begin in tl.static_range(0, COUNT, 2 * EACH if FORMAT == INT4 else COUNT):
        part = tl.zeros((rows, lanes * 4), tl.float32)
        ones = tl.zeros((lanes * 4,), tl.float32)  # what 1 + zero / 2**s adds, or only the 1
        sums = tl.zeros((lanes * 4,), tl.float32)  # the sum of x
        for i in tl.static_range(begin, begin + (2 * EACH if FORMAT == INT4 else COUNT)):
            x = parts[i]
            part = tl.fma(_number(w, one, i, FORMAT, ASM), tl.broadcast_to(x[None, :], part.shape),
                          part)
            if ZEROS:
                ones += x
                sums += x * (0.00390625 if i // 2 % 2 == 0 else 0.0625)
            elif FORMAT == INT4:
                ones += x * (1.03125 if i // 2 % 2 == 0 else 1.5)  # 1 + 8 / 256, 1 + 8 / 16
            else:
                ones += x
        dot = tl.sum(tl.reshape(part, (rows, lanes, 4)), 2)
        ones = tl.sum(tl.reshape(ones, (lanes, 4)), 1)[None, :]
        if FORMAT == INT8:
            dot = dot - ones * 1.00390625  # 1 + 128 / 32768
        elif FORMAT == INT4:
            dot = dot - ones
            if ZEROS:
                sums = tl.sum(tl.reshape(sums, (lanes, 4)), 1)[None, :]
                dot = dot - sums * zero[begin // 2].to(tl.float32)
            dot = dot * (scale[begin // 2].to(tl.float32) * 16.0)
        total += dot
    return total


@triton.jit
def _table(table, row, word, mask, groups, GROUP: tl.constexpr, PART: tl.constexpr):
    group = tl.minimum((word // 16 * 128 + PART * 32) // GROUP, groups - 1)
    at = table + row[:, None] * groups + group[None, :]
    return tl.load(at, mask=mask[None, :], other=0.0)


@triton.jit
def _tables(table, row, word, mask, groups, GROUP: tl.constexpr, EACH: tl.constexpr):
    """Scales (or zero points) of the four slices: [rows, lanes] each; EACH slices share one."""
    a = _table(table, row, word, mask, groups, GROUP, 0)
    b = a
    c = a
    d = a
    if EACH == 1:
        b = _table(table, row, word, mask, groups, GROUP, 1)
        d = _table(table, row, word, mask, groups, GROUP, 3)
    if EACH <= 2:
        c = _table(table, row, word, mask, groups, GROUP, 2)
    if EACH == 2:
        d = c
    return a, b, c, d


@triton.jit
def _load(w, scales, zeros, row, word, lane, more, row_words, groups, FORMAT: tl.constexpr,
          GROUP: tl.constexpr, EACH: tl.constexpr, ZEROS: tl.constexpr):
    """Words [rows, words], and for int4 their scales and zero points."""
    words = tl.load(w + row[:, None] * row_words + word[None, :],
                    mask=((word < row_words) & more)[None, :], other=0)
    scale = (0, 0, 0, 0)
    zero = (0, 0, 0, 0)
    if FORMAT == INT4:
        inside = (lane < row_words) & more
        scale = _tables(scales, row, lane, inside, groups, GROUP, EACH)
        if ZEROS:
            zero = _tables(zeros, row, lane, inside, groups, GROUP, EACH)
    return words, scale, zero


@triton.jit
def vector(x, w, scales, zeros, norm, bias, residual, out, n_out, K, row_words, groups, inter, eps,
           one, FORMAT: tl.constexpr, COUNT: tl.constexpr, GROUP: tl.constexpr, EACH: tl.constexpr,
           PAIRS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
           WHOLE: tl.constexpr, ZEROS: tl.constexpr, NORM: tl.constexpr, SWIGLU: tl.constexpr,
           BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PDL: tl.constexpr, ASM: tl.constexpr,
           WIDE: tl.constexpr):
    """x [K] times w, rows of `row_words` int32 (float32 for FP32) with COUNT numbers each.

    WHOLE: BLOCK_W words are a row, x stays in registers, and a program takes every
    num_programs-th block of rows, the next one's weights on their way while it works. Otherwise
    one block a program, along the row in pieces of BLOCK_W. GROUP inputs, EACH slices of a packed
    block, share an int4 scale; int8 and fp8 have one a row.
    """
    block = tl.program_id(0)
    step = tl.num_programs(0)
    word = tl.arange(0, BLOCK_W)
    lane = tl.arange(0, BLOCK_W // 4) * 4
    row = _row_of(block, n_out, inter, BLOCK_N, SWIGLU, WIDE)
    words, scale, zero = _load(w, scales, zeros, row, word, lane, True, row_words, groups, FORMAT,
                               GROUP, EACH, ZEROS)
    weights = (0.0, 0.0)
    if WHOLE and NORM:  # comes from memory, and not from another kernel as x does
        weights = _parts(norm, word, K, FORMAT, PAIRS)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    if WHOLE:
        parts, squares = _read_x(x, weights, word, K, FORMAT, COUNT, PAIRS, NORM)
        rstd = 1.0
        if NORM:
            rstd = tl.rsqrt(tl.sum(squares, 0) / K + eps)
        for at in range(block, tl.cdiv(n_out, BLOCK_N // 2 if SWIGLU else BLOCK_N), step):
            next_row = _row_of(at + step, n_out, inter, BLOCK_N, SWIGLU, WIDE)
            beside = _beside(row, at, n_out, scales, bias, residual, BLOCK_N, FORMAT, SWIGLU,
                             BIAS, RESIDUAL)
            more = (at + step) * (BLOCK_N // 2 if SWIGLU else BLOCK_N) < n_out
            words_ahead, scale_ahead, zero_ahead = _load(
                w, scales, zeros, next_row, word, lane, more, row_words, groups, FORMAT, GROUP,
                EACH, ZEROS)
            y = tl.sum(_dot(words, parts, scale, zero, one, FORMAT, COUNT, EACH, ZEROS, ASM), 1)
            y = y * rstd
            _finish(y, at, n_out, beside, out, BLOCK_N, FORMAT, SWIGLU, BIAS, RESIDUAL)
            row = next_row
            words = words_ahead
            scale = scale_ahead
            zero = zero_ahead
    else:
        beside = _beside(row, block, n_out, scales, bias, residual, BLOCK_N, FORMAT, SWIGLU, BIAS,
                         RESIDUAL)
        acc = tl.zeros((BLOCK_N, BLOCK_W // 4), tl.float32)
        total = tl.zeros((BLOCK_W,), tl.float32)
        for at in range(0, row_words, BLOCK_W):
            ahead = at + BLOCK_W
            words_ahead, scale_ahead, zero_ahead = _load(
                w, scales, zeros, row, ahead + word, ahead + lane, True, row_words, groups, FORMAT,
                GROUP, EACH, ZEROS)
            if NORM:
                factors = _parts(norm, at + word, K, FORMAT, PAIRS)
            else:
                factors = weights
            parts, squares = _read_x(x, factors, at + word, K, FORMAT, COUNT, PAIRS, NORM)
            total += squares
            acc += _dot(words, parts, scale, zero, one, FORMAT, COUNT, EACH, ZEROS, ASM)
            words = words_ahead
            scale = scale_ahead
            zero = zero_ahead
        y = tl.sum(acc, 1)
        if NORM:
            y = y * tl.rsqrt(tl.sum(total, 0) / K + eps)
        _finish(y, block, n_out, beside, out, BLOCK_N, FORMAT, SWIGLU, BIAS, RESIDUAL)


def example(form: int, least: tuple[int, int], *, x: str = "fp16", warps: int = 4,
            **chosen: Any) -> Example:
    """A typical call for the compiler, of one format; `chosen` are the kernel's constants."""
    constants = {"FORMAT": form, "COUNT": (1, 2, 2, 4, 4, 8)[form], "GROUP": 128, "EACH": 4,
                 "PAIRS": {"bf16": 1, "fp16": 2, "fp32": 0}[x], "BLOCK_N": 8, "BLOCK_W": 512,
                 "WHOLE": True, "ZEROS": False, "NORM": False, "SWIGLU": False, "BIAS": False,
                 "RESIDUAL": False, "PDL": False, "ASM": True, "WIDE": False, **chosen}
    words = f"*{x}" if x == "fp32" else "*i32"
    scales = f"*{x}" if form == 5 else "*fp32"
    sizes = dict.fromkeys(("n_out", "K", "row_words", "groups", "inter"), "i32")
    signature = {"x": words, "w": words if form == 0 else "*i32", "scales": scales,
                 "zeros": scales, "norm": words, "bias": f"*{x}", "residual": f"*{x}",
                 "out": f"*{x}", **sizes, "eps": "fp32", "one": "i32",
                 **dict.fromkeys(constants, "constexpr")}
    return Example(vector, signature, constants, num_warps=warps, least=least,
                   aligned=("n_out", "K", "row_words", "inter"))


def examples() -> list[Example]:
    """Calls as one token of an 8B model makes them."""
    return [
        example(1, (8, 0), x="bf16", BLOCK_N=4, BLOCK_W=2048, warps=16, RESIDUAL=True),
        example(2, (7, 5), WHOLE=False, NORM=True, BIAS=True),
        example(0, (7, 5), x="fp32", WHOLE=False, NORM=True),
        example(3, (9, 0), x="bf16", WHOLE=False, RESIDUAL=True, PDL=True),
        example(4, (7, 5), BLOCK_N=4, BLOCK_W=1024, NORM=True),
        example(5, (9, 0), x="bf16", warps=8, NORM=True, SWIGLU=True, PDL=True),
        example(5, (7, 5), BLOCK_N=16, BLOCK_W=256, WHOLE=False, RESIDUAL=True),
        example(5, (8, 0), BLOCK_N=4, EACH=1, GROUP=32, ZEROS=True, NORM=True),
    ]
