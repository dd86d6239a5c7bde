"""RMSNorm on a GPU, alone or together with the addition that comes before it.

A row is read once, squared and summed in registers, scaled and written: the memory's speed is the
only limit, and the addition of the residual rides along (chapter 13). Sums are float32, and the
result is rounded once. How a row is summed depends on its length alone, so a row gives the same
bits in any batch. Source: Zhang and Sennrich, arXiv:1910.07467.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from infero import tune
from infero.errors import ParameterError
from infero.kernels import overlap
from infero.kernels.examples import Example
from infero.kernels.language import tl, triton

LONGEST = 1 << 16  # elements of a row: it is held in the registers of one program


@triton.jit(do_not_specialize=["rows"])
def _rms_norm(x, residual, weight, out, rows, n, x_stride, eps,
              ADD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """ROWS rows a program; with ADD, x + residual replaces residual and is what is normed."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (i < n)
    row = row.to(tl.int64)
    value = tl.load(x + row * x_stride + i, mask=inside, other=0.0)
    if ADD:
        other = tl.load(residual + row * n + i, mask=inside, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(residual.dtype.element_ty)
        tl.store(residual + row * n + i, value, mask=inside)
    scale = tl.load(weight + i, mask=i < n, other=0.0).to(tl.float32)
    wide = value.to(tl.float32)
    mean_square = tl.sum(wide * wide, axis=1)[:, None] / n
    normed = wide * (1 / tl.sqrt_rn(mean_square + eps)) * scale
    tl.store(out + row * n + i, normed.to(out.dtype.element_ty), mask=inside)


@functools.cache
def _config(n: int) -> tuple[int, int, int]:
    """Rows a program, elements of a row as a power of two, warps: by the row's length alone."""
    if n > LONGEST:
        raise ParameterError(f"A row has {n} elements; the norm's kernel holds a whole row and "
                             f"takes at most {LONGEST}: use infero.model.rms_norm.")
    block = max(triton.next_power_of_2(n), 16)
    chosen = tune.best("norms.rms_norm", f"n{block}") or {}
    rows = chosen.get("rows", max(2, 2048 // block) if block <= 4096 else 1)
    return rows, block, chosen.get("warps", min(max(rows * block // 512, 1), 16))


def _rows_of(x: Tensor) -> Tensor:
    """x as [rows, n], elements side by side, rows evenly apart."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(1) == 1 or flat.shape[1] == 1 else flat.contiguous()


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor | None = None) -> Tensor:
    """As `infero.model.rms_norm`: x [.., n], weight [n]; `out`, if given, is contiguous."""
    n = x.shape[-1]
    flat = _rows_of(x)
    if out is None:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows, block, warps = _config(n)
    if flat.shape[0]:
        _rms_norm[(triton.cdiv(flat.shape[0], rows),)](
            flat, flat, weight, out, flat.shape[0], n, flat.stride(0), eps, ADD=False, ROWS=rows,
            BLOCK=block, num_warps=warps, **overlap.options(x.device))
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float,
                 out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """residual + x, in place of residual [.., n], and its norm: (normed, residual).

    x: [.., n]; residual, and `out` if given, are contiguous. The sum is rounded to the residual's
    dtype before it is normed, as it is when the addition is an operation of its own.
    """
    n = x.shape[-1]
    if not residual.is_contiguous():
        raise ParameterError("residual is updated in place and must be contiguous; it has strides "
                             f"{residual.stride()}: call .contiguous() where it is made.")
    flat = _rows_of(x)
    if out is None:
        out = torch.empty_like(residual)
    rows, block, warps = _config(n)
    if flat.shape[0]:
        _rms_norm[(triton.cdiv(flat.shape[0], rows),)](
            flat, residual, weight, out, flat.shape[0], n, flat.stride(0), eps, ADD=True, ROWS=rows,
            BLOCK=block, num_warps=warps, **overlap.options(x.device))
    return out, residual


def examples() -> list[Example]:
    """For the cross-compile test."""
    signature = {"x": "*fp16", "residual": "*fp16", "weight": "*fp16", "out": "*fp16",
                 "rows": "i32", "n": "i32", "x_stride": "i32", "eps": "fp32", "ADD": "constexpr",
                 "ROWS": "constexpr", "BLOCK": "constexpr", "PDL": "constexpr"}
    wide = {name: kind.replace("fp16", "bf16") for name, kind in signature.items()}
    return [
        Example(_rms_norm, signature, {"ADD": False, "ROWS": 4, "BLOCK": 128, "PDL": False}, 1),
        Example(_rms_norm, wide, {"ADD": True, "ROWS": 2, "BLOCK": 4096, "PDL": True}, 16,
                least=(9, 0), aligned=("n", "x_stride")),
    ]
