"""Matrix products with few tokens, and with weights of one byte or half a byte: the launches.

`skinny` is one launch for a product with its norm, bias, SwiGLU and residual: `matmul_vector.py`
for one token, `matmul_dot.py` for more. How large its blocks are is looked up, first in the tuned
table (`infero tune`), then in the rules here, which were measured on an H100. Chapter 15.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from infero import tune
from infero.kernels import formats, language, matmul_dot, matmul_vector, overlap
from infero.kernels.formats import Fp8Weight, Int4Weight, Int8Weight

Config = dict[str, Any]
HALVES = {torch.bfloat16: 1, torch.float16: 2}  # as `matmul_vector` names their pairs
COUNT = {0: 1, 1: 2, 2: 2, 3: 4, 4: 4, 5: 8}  # numbers a word, by the vector kernel's format
TICKETS = 1 << 14  # tiles of a split product at most
ONE = 0x3F800000  # the bits of 1.0 in float32
PDL = True  # start a kernel while the one before it ends; False to measure what that is worth


@functools.cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; 4 on the CPU, so that small tests have several blocks."""
    if device.type != "cuda":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def overlaps(device: torch.device) -> bool:
    """Whether a kernel can be started before the one before it has ended (PDL)."""
    return PDL and bool(overlap.options(device)["PDL"])


def compiled(device: torch.device) -> bool:
    """Whether kernels are compiled for this device, and may use its assembly."""
    return device.type == "cuda" and not language.INTERPRETED


_made: dict[torch.device, Tensor] = {}


def _tickets(device: torch.device) -> Tensor | None:
    """Zeros that `matmul_dot.dot` counts finished programs in; it leaves zeros behind.

    Shared by all launches on a device: two streams must not run split products at once. None while
    a graph is captured, if there are none yet: they would be the graph's own memory.
    """
    if device not in _made:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return None
        _made[device] = torch.zeros(TICKETS, dtype=torch.int32, device=device)
    return _made[device]


def format_name(weight: formats.Weight) -> str:
    """"bf16", "fp16", "fp32", "int8", "int4" or "fp8": the weight's bytes, as tables name them."""
    if isinstance(weight, Tensor):
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(weight.dtype, "fp32")
    known = {Int8Weight: "int8", Int4Weight: "int4", Fp8Weight: "fp8"}
    return known.get(type(weight), "w8a8")


def shape_class(weight: formats.Weight, swiglu: bool, tokens: int = 1) -> str:
    """What a tuned configuration is kept under: "int4 28672x4096 swiglu", "int8 4096x4096 m16"."""
    n, k = weight.shape
    end = " swiglu" if swiglu else ""
    if tokens > 1:
        end = f" m{max(language.power_of_two(tokens), 16)}"
    return f"{format_name(weight)} {n}x{k}{end}"


def words_of(values: Tensor) -> Tensor | None:
    """A matrix as 32-bit words, or None where its rows do not consist of whole ones."""
    if values.dtype in (torch.float32, torch.int32):
        return values
    if values.shape[1] * values.element_size() % 4:
        return None
    return values.view(torch.int32)


# ---------------------------------------------------------------- one token


def vector_config(weight: formats.Weight, swiglu: bool) -> Config:
    """Block of rows, block of words, warps, blocks resident a processor: for one token."""
    found = tune.best("matmul.vector", shape_class(weight, swiglu))
    if found is not None:
        return found
    n, k = weight.shape
    per_word = COUNT[_vector_format(weight)]
    row_words = -(-k // per_word)
    if row_words <= 512:
        words = max(language.power_of_two(row_words), 16)
        return {"rows": 8 if n >= 8192 else 4, "words": words, "warps": 4, "whole": True,
                "programs": 4}
    if row_words <= 2048 and row_words & (row_words - 1) == 0 and n >= 2048:
        return {"rows": 4, "words": row_words, "warps": row_words // 128, "whole": True,
                "programs": 2 if row_words == 2048 else 4}
    return {"rows": 8 if n >= 8192 else 4, "words": 512 if row_words % 512 == 0 else 256,
            "warps": 4, "whole": False, "programs": 1}


def _vector_format(weight: formats.Weight) -> int:
    if isinstance(weight, Tensor):
        return HALVES.get(weight.dtype, 0)
    return {Int8Weight: 3, Fp8Weight: 4, Int4Weight: 5}[type(weight)]


def vector(x: Tensor, weight: formats.Weight, bias: Tensor | None, norm: Tensor | None,
           eps: float, residual: Tensor | None, swiglu: bool, out: Tensor,
           config: Config | None = None) -> bool:
    """One token: x [1, in]. False where rows are no whole words, and nothing was computed."""
    n, k = weight.shape
    scales = zeros = x
    group = groups = each = 1
    if isinstance(weight, Int4Weight):
        words: Tensor | None = weight.words
        scales, zeros = weight.scales, weight.scales if weight.zeros is None else weight.zeros
        group, groups, each = weight.group, scales.shape[1], slices_a_scale(weight)
    elif isinstance(weight, Tensor):
        words = words_of(weight)
    else:
        words, scales = words_of(weight.values), weight.scales
    if words is None:
        return False
    config = config or vector_config(weight, swiglu)
    rows, whole = config["rows"], config["whole"]
    alike = norm is None or norm.dtype == x.dtype
    pairs = HALVES.get(x.dtype, 0) if k % 2 == 0 and alike else 0
    if not pairs and _vector_format(weight) in (1, 2):
        return False
    x32 = x.view(torch.int32) if pairs else x
    norm32 = x32 if norm is None else norm.view(torch.int32) if pairs else norm
    n_out = n // 2 if swiglu else n
    blocks = -(-n_out // (rows // 2 if swiglu else rows))
    programs = blocks
    if whole:
        most = config["programs"] * processors(x.device)
        programs = -(-blocks // -(-blocks // most))
    options = {"launch_pdl": True} if overlaps(x.device) else {}
    matmul_vector.vector[(programs,)](
        x32, words, scales, zeros, norm32, x if bias is None else bias,
        x if residual is None else residual, out, n_out, k, words.shape[1], groups,
        n // 2 if swiglu else 0, eps, ONE, FORMAT=_vector_format(weight),
        COUNT=COUNT[_vector_format(weight)], GROUP=group, EACH=each, PAIRS=pairs, BLOCK_N=rows,
        BLOCK_W=config["words"], WHOLE=whole,
        ZEROS=isinstance(weight, Int4Weight) and weight.zeros is not None, NORM=norm is not None,
        SWIGLU=swiglu, BIAS=bias is not None, RESIDUAL=residual is not None, PDL=bool(options),
        ASM=compiled(x.device), WIDE=words.numel() >= 1 << 31, num_warps=config["warps"], **options)
    return True


def slices_a_scale(weight: Int4Weight) -> int:
    """How many of the four slices of a packed block share a scale."""
    if weight.group % formats.BLOCK == 0 or weight.scales.shape[1] == 1:
        return 4
    return 2 if weight.group % 64 == 0 else 1


# ---------------------------------------------------------------- several tokens


def dot_config(weight: formats.Weight, tokens: int, swiglu: bool, same: bool) -> Config:
    """Blocks of rows, tokens and inputs, warps, stages, parts of K. `same`: whatever `tokens` is.

    There are few different ones, since each is compiled when it is first met: for 16 tokens, for
    64, and for blocks of 64 or 128 of more.
    """
    name = format_name(weight)
    if name == "fp32":
        return {"rows": 32, "tokens": 16, "inputs": 32, "warps": 4, "stages": 2, "splits": 1}
    if same:
        return {"rows": 64, "tokens": 64, "inputs": 128, "warps": 4, "stages": 3, "splits": 1}
    if tokens <= 64:
        found = tune.best("matmul.dot", shape_class(weight, swiglu, 16 if tokens <= 16 else 64))
        if found is not None:
            return found
    n, k = weight.shape
    few = tokens <= 16
    rows = 32 if n <= 2048 else 64 if name != "int4" else 128
    block, warps = (16 if few else 64), 4
    if name in ("fp8", "w8a8") and not few:
        rows, block = 64, 128
    elif name == "int8" and tokens > 64:
        rows, block, warps = 128, 128, 8
    tiles = -(-n // rows) * -(-tokens // block)
    splits = 1
    while splits < 8 and tiles * splits < 192 and k >= 512 * splits:
        splits *= 2
    return {"rows": rows, "tokens": block, "inputs": 128, "warps": warps,
            "stages": 4 if few or name in ("fp8", "w8a8") else 3, "splits": splits}


def dot(x: Tensor, weight: formats.Weight, bias: Tensor | None, norm: Tensor | None, eps: float,
        residual: Tensor | None, swiglu: bool, out: Tensor, *, same: bool = False,
        x_scales: Tensor | None = None, config: Config | None = None) -> None:
    """Several tokens: x [tokens, in], with `x_scales` [tokens] in fp8."""
    n, k = weight.shape
    tokens = x.shape[0]
    config = config or dot_config(weight, tokens, swiglu, same)
    scales = zeros = x
    group = groups = each = 1
    inputs = config["inputs"]
    if isinstance(weight, Int4Weight):
        values, kind, inputs = weight.words.view(torch.int16), 2, formats.BLOCK
        scales, zeros = weight.scales, weight.scales if weight.zeros is None else weight.zeros
        group, groups, each = weight.group, scales.shape[1], slices_a_scale(weight)
    elif isinstance(weight, Tensor):
        values, kind = weight, 0
    else:
        values, scales = weight.values, weight.scales
        kind = 1 if x_scales is None else 4 if x.dtype is torch.int8 else 3
    n_out = n // 2 if swiglu else n
    rows = config["rows"]
    grid = (-(-n_out // (rows // 2 if swiglu else rows)), -(-tokens // config["tokens"]),
            config.get("splits", 1))
    parts, tickets = x, _tickets(x.device) if grid[2] > 1 else None
    if tickets is None or grid[0] * grid[1] > TICKETS:
        grid, tickets = (*grid[:2], 1), x
    else:
        size = grid[0] * grid[1] * grid[2] * (rows + 1) * config["tokens"]
        parts = torch.empty(size, dtype=torch.float32, device=x.device)
    matmul_dot.dot[grid](
        x, values, scales, zeros, x if x_scales is None else x_scales, x if norm is None else norm,
        x if bias is None else bias, x if residual is None else residual, out, parts, tickets,
        tokens, n_out, k, values.shape[1], groups, x.stride(0), n // 2 if swiglu else 0, eps,
        FORMAT=kind, GROUP=group, EACH=each, BLOCK_N=rows, BLOCK_M=config["tokens"],
        BLOCK_K=inputs, SPLITS=grid[2], EVEN=k % inputs == 0,
        ZEROS=isinstance(weight, Int4Weight) and weight.zeros is not None,
        NORM=norm is not None, SWIGLU=swiglu, BIAS=bias is not None,
        RESIDUAL=residual is not None, PDL=False,  # measured: it costs 5 % here
        ASM=compiled(x.device) and x.dtype in HALVES, num_warps=config["warps"],
        num_stages=config["stages"])


def skinny(x: Tensor, weight: formats.Weight, bias: Tensor | None, norm: Tensor | None, eps: float,
           residual: Tensor | None, swiglu: bool, out: Tensor, *, same: bool = False) -> Tensor:
    """One launch for a product and its neighbours; `same`: the same blocks for any tokens."""
    if x.shape[0] > 1 or same or not vector(x, weight, bias, norm, eps, residual, swiglu, out):
        dot(x, weight, bias, norm, eps, residual, swiglu, out, same=same)
    return out


def tunables() -> list[tune.Tunable]:
    """What `infero tune` may try for these launches."""
    from infero.kernels import matmul_tune

    return matmul_tune.tunables()
