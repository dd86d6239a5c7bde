"""A few tokens times a matrix: weights are unpacked in registers and multiplied by tensor cores.

With M tokens a weight that was read is used M times, and from two or so on that is work for tensor
cores. Their smallest tile is 16 rows by 8 columns: the weight stands on the left, so that its many
rows are the tile's rows and the few tokens its columns: out^T = w x^T. It also means that the
weight, which is taken apart in registers, is the operand that tensor cores take from registers.
Chapter 15 explains the kernel; Marlin (arXiv:2408.11743) is the reference for what it does.

int4 words come as `formats.py` packs them: nibble i of the 32 words of a block meets slice i of x.
(word & 0x000F000F) | 0x43004300 is a pair of bf16, 128 + v each, so two weights cost a shift, one
logical operation and one subtraction. A group's scale multiplies the accumulator, not the weights.

With few output rows there are too few programs to keep every processor's loads in flight, so K is
split over programs too. Each writes its part to memory; the one that finishes last, told by a
ticket, adds the parts in their fixed order, whatever the order they came in (split-K as in
arXiv:2402.00025, without its floating-point atomics). Norm, residual and SwiGLU ride along as in
`matmul_vector.py`.
"""

from __future__ import annotations

from typing import Any

from infero.kernels.examples import Example
from infero.kernels.language import tl, triton

DENSE, ROW_SCALED, INT4, FP8_BOTH, INT8_BOTH = (tl.constexpr(i) for i in range(5))


@triton.jit
def _nibble(w, PART: tl.constexpr, dtype: tl.constexpr, ASM: tl.constexpr):
    """Nibble PART of 16-bit words, minus 8: [rows, words] in `dtype`."""
    if ASM:  # two words in a register; 0xEA is (a & b) | c; then times 1 plus -136 or -1032
        code: tl.constexpr = ("{ .reg .b32 t, u, v; shr.u32 t, $1, 0;" if PART == 0 else
                              "{ .reg .b32 t, u, v; shr.u32 t, $1, 4;" if PART == 1 else
                              "{ .reg .b32 t, u, v; shr.u32 t, $1, 8;" if PART == 2 else
                              "{ .reg .b32 t, u, v; shr.u32 t, $1, 12;")
        if dtype == tl.bfloat16:
            number = tl.inline_asm_elementwise(
                code + "lop3.b32 t, t, 0x000F000F, 0x43004300, 0xEA; mov.b32 u, 0x3F803F80;"
                "mov.b32 v, 0xC308C308; fma.rn.bf16x2 $0, t, u, v; }",
                "=r,r", [w], tl.bfloat16, is_pure=True, pack=2)
        else:
            number = tl.inline_asm_elementwise(
                code + "lop3.b32 t, t, 0x000F000F, 0x64006400, 0xEA; mov.b32 u, 0x3C003C00;"
                "mov.b32 v, 0xE408E408; fma.rn.f16x2 $0, t, u, v; }",
                "=r,r", [w], tl.float16, is_pure=True, pack=2)
    else:
        number = (((w >> (4 * PART)) & 15) - 8).to(dtype)
    return number


@triton.jit
def _scale_of(table, row, block, groups, GROUP: tl.constexpr, PART: tl.constexpr):
    group = tl.minimum((block * 128 + PART * 32) // GROUP, groups - 1)
    return tl.load(table + row * groups + group)


@triton.jit(do_not_specialize=["M"])
def dot(x, w, scales, zeros, x_scales, norm, bias, residual, out, parts, tickets, M, n_out, K,
        row_words, groups, stride_x, inter, eps, FORMAT: tl.constexpr, GROUP: tl.constexpr,
        EACH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
        SPLITS: tl.constexpr, EVEN: tl.constexpr, ZEROS: tl.constexpr, NORM: tl.constexpr,
        SWIGLU: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PDL: tl.constexpr,
        ASM: tl.constexpr):
    """x [M, K] times w [rows, K] of `row_words` elements a row (int4: of 16 bits): out [M, n_out].

    Programs: blocks of outputs times blocks of tokens times SPLITS parts of K. K goes BLOCK_K at
    a time (int4: a block of 128). FP8_BOTH, INT8_BOTH: x is of bytes, with a scale a row. parts:
    float32 for SPLITS * (BLOCK_N + 1) * BLOCK_M numbers a tile of `out`; tickets: a zero for each
    tile, which is a zero again afterwards.
    """
    block_n, block_m, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    half: tl.constexpr = BLOCK_N // 2
    r = tl.arange(0, BLOCK_N)
    if SWIGLU:
        row = tl.minimum(block_n * half + r % half, n_out - 1) + (r // half) * inter
    else:
        row = tl.minimum(block_n * BLOCK_N + r, n_out - 1)
    row = row.to(tl.int64)
    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    there = m < M
    x_row = x + tl.minimum(m, M - 1).to(tl.int64)[None, :] * stride_x
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if PDL:
        tl.extra.cuda.gdc_wait()
    if FORMAT == INT4:
        j = tl.arange(0, 32)
        squares = tl.zeros((32, BLOCK_M), tl.float32)
        w_tile = w + row[:, None] * row_words + j[None, :]
        each = tl.cdiv(row_words // 32, SPLITS)
        for block in range(split * each, tl.minimum(split * each + each, row_words // 32)):
            words = tl.load(w_tile + block * 32)
            part = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
            for i in tl.static_range(4):
                k = block * 128 + i * 32 + j
                if EVEN:
                    xs = tl.load(x_row + k[:, None], mask=there[None, :], other=0.0)
                else:
                    xs = tl.load(x_row + k[:, None], mask=(k < K)[:, None] & there[None, :],
                                 other=0.0)
                if NORM:
                    wide = xs.to(tl.float32)
                    squares += wide * wide
                    if EVEN:
                        g = tl.load(norm + k)
                    else:
                        g = tl.load(norm + k, mask=k < K, other=0.0)
                    xs = (wide * g.to(tl.float32)[:, None]).to(xs.dtype)
                weights = _nibble(words, i, xs.dtype, ASM)
                if ZEROS:
                    zero = _scale_of(zeros, row, block, groups, GROUP, i) - 8.0
                    weights = weights - zero.to(xs.dtype)[:, None]
                part = tl.dot(weights, xs, part, input_precision="ieee")
                if (i + 1) % EACH == 0:
                    scale = _scale_of(scales, row, block, groups, GROUP, i).to(tl.float32)
                    acc += part * scale[:, None]
                    if i < 3:
                        part = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    else:
        k = tl.arange(0, BLOCK_K)
        exact = tl.zeros((BLOCK_N, BLOCK_M), tl.int32)
        squares = tl.zeros((BLOCK_K, BLOCK_M), tl.float32)
        w_tile = w + row[:, None] * row_words + k[None, :]
        each = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLITS) * BLOCK_K
        for at in range(split * each, tl.minimum(split * each + each, K), BLOCK_K):
            if EVEN:
                weights = tl.load(w_tile + at)
                xs = tl.load(x_row + at + k[:, None], mask=there[None, :], other=0.0)
            else:
                weights = tl.load(w_tile + at, mask=(at + k < K)[None, :], other=0.0)
                xs = tl.load(x_row + at + k[:, None],
                             mask=(at + k < K)[:, None] & there[None, :], other=0.0)
            if NORM:
                wide = xs.to(tl.float32)
                squares += wide * wide
                if EVEN:
                    g = tl.load(norm + at + k)
                else:
                    g = tl.load(norm + at + k, mask=at + k < K, other=0.0)
                xs = (wide * g.to(tl.float32)[:, None]).to(xs.dtype)
            if FORMAT == INT8_BOTH:
                exact = tl.dot(weights, xs, exact, out_dtype=tl.int32)
            elif FORMAT == FP8_BOTH:
                acc = tl.dot(weights, xs, acc, max_num_imprecise_acc=128)
            else:
                acc = tl.dot(weights.to(xs.dtype), xs, acc, input_precision="ieee")
        if FORMAT == INT8_BOTH:
            acc = exact.to(tl.float32)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    square = tl.sum(squares, 0)
    last = True
    if SPLITS > 1:
        tile = block_m * tl.num_programs(0) + block_n
        size: tl.constexpr = BLOCK_N * BLOCK_M
        r_part = tl.arange(0, BLOCK_N)[:, None] * BLOCK_M + tl.arange(0, BLOCK_M)[None, :]
        mine = parts + (tile * SPLITS).to(tl.int64) * (size + BLOCK_M)
        tl.store(mine + split * size + r_part, acc)
        mine_squares = mine + SPLITS * size + tl.arange(0, BLOCK_M)
        if NORM:
            tl.store(mine_squares + split * BLOCK_M, square)
        tl.debug_barrier()
        last = tl.atomic_add(tickets + tile, 1, sem="acq_rel", scope="gpu") == SPLITS - 1
        if last:
            acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
            square = tl.zeros((BLOCK_M,), tl.float32)
            for i in range(SPLITS):
                acc += tl.load(mine + i * size + r_part, cache_modifier=".cg")
                if NORM:
                    square += tl.load(mine_squares + i * BLOCK_M, cache_modifier=".cg")
            tl.store(tickets + tile, 0)
    if last:
        if NORM:
            acc = acc * tl.rsqrt(square / K + eps)[None, :]
        if FORMAT == ROW_SCALED or FORMAT >= FP8_BOTH:
            acc = acc * tl.load(scales + row)[:, None]
        if FORMAT >= FP8_BOTH:
            acc = acc * tl.load(x_scales + m, mask=there, other=0.0)[None, :]
        if BIAS:
            acc = acc + tl.load(bias + row).to(tl.float32)[:, None]
        if SWIGLU:
            halves = tl.permute(tl.reshape(acc, (2, half, BLOCK_M)), (1, 2, 0))
            gate, up = tl.split(halves)
            y = gate / (1.0 + tl.exp(-gate)) * up
            column = block_n * half + tl.arange(0, half)
        else:
            y = acc
            column = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = (column < n_out)[:, None] & there[None, :]
        place = m.to(tl.int64)[None, :] * n_out + column[:, None]
        if RESIDUAL:
            y = y + tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + place, y.to(out.dtype.element_ty), mask=inside)


def example(form: int, rows: int, tokens: int, *, x: str = "bf16", w: str = "", warps: int = 4,
            stages: int = 3, least: tuple[int, int] = (8, 0), **chosen: Any) -> Example:
    """A typical call for the compiler; `chosen` are the kernel's constants."""
    constants = {"FORMAT": form, "GROUP": 128, "EACH": 4, "BLOCK_N": rows, "BLOCK_M": tokens,
                 "BLOCK_K": 128, "SPLITS": 1, "EVEN": True, "ZEROS": False, "NORM": False,
                 "SWIGLU": False, "BIAS": False, "RESIDUAL": False, "PDL": False, "ASM": True,
                 **chosen}
    out = "bf16" if x in ("fp8e4nv", "i8") else x
    scales = f"*{out}" if form == 2 else "*fp32"
    pointers = {"x": x, "w": w or (x, "i8", "i16", "fp8e4nv", "i8")[form], "norm": out, "bias": out,
                "residual": out, "out": out, "x_scales": "fp32", "parts": "fp32",
                "tickets": "i32"}
    sizes = ("M", "n_out", "K", "row_words", "groups", "stride_x", "inter")
    signature = {**{name: f"*{kind}" for name, kind in pointers.items()}, "scales": scales,
                 "zeros": scales, **dict.fromkeys(sizes, "i32"), "eps": "fp32",
                 **dict.fromkeys(constants, "constexpr")}
    return Example(dot, signature, constants, num_warps=warps, least=least,
                   aligned=("n_out", "K", "row_words", "stride_x", "inter"),
                   options={"num_stages": stages})


def examples() -> list[Example]:
    """Calls as a few tokens of an 8B model make them."""
    return [
        example(0, 64, 16, stages=4, NORM=True, SWIGLU=True),
        example(0, 32, 16, x="fp32", stages=2, BLOCK_K=32, ASM=False, NORM=True),
        example(1, 32, 16, warps=2, stages=6, SPLITS=4, RESIDUAL=True, least=(9, 0)),
        example(1, 64, 16, w="fp8e4nv", stages=4, NORM=True, least=(9, 0)),
        example(2, 128, 16, stages=4, SPLITS=4, NORM=True, least=(9, 0)),
        example(2, 128, 64, x="fp16", SPLITS=2, SWIGLU=True),
        example(2, 32, 16, x="fp16", EACH=1, GROUP=32, ZEROS=True, EVEN=False),
        example(3, 64, 128, x="fp8e4nv", stages=4, SWIGLU=True, least=(9, 0)),
        example(4, 64, 16, x="i8", stages=4, SPLITS=2, BIAS=True),
        example(4, 64, 128, x="i8", warps=8),
    ]
