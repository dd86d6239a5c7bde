"""SiLU·mul, the gated activation of the MLP, on a GPU: two numbers read, one written.

Chapter 13 explains why it is one kernel: as PyTorch operations it reads and writes five numbers
for each one that remains. Source: Shazeer, arXiv:2002.05202.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from infero import tune
from infero.kernels import overlap
from infero.kernels.examples import Example
from infero.kernels.language import tl, triton


@triton.jit
def _silu_mul(gate, up, out, n, gate_stride, up_stride, parts, BLOCK: tl.constexpr,
              PDL: tl.constexpr):
    """One of the `parts` blocks of a row a program; rows of n elements."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = (tl.program_id(0) // parts).to(tl.int64)
    i = tl.program_id(0) % parts * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    g = tl.load(gate + row * gate_stride + i, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * n + i, (g / (1 + tl.exp(-g)) * u).to(out.dtype.element_ty), mask=inside)


@functools.cache
def _config() -> tuple[int, int]:
    """Elements a program and warps."""
    chosen = tune.best("activations.silu_mul", "any") or {}
    return chosen.get("block", 2048), chosen.get("warps", 8)


def _run(gate: Tensor, up: Tensor, out: Tensor) -> Tensor:
    tokens, n = gate.shape
    if gate.numel():
        block, warps = _config()
        block = min(block, max(triton.next_power_of_2(n), 32))
        parts = triton.cdiv(n, block)
        _silu_mul[(tokens * parts,)](gate, up, out, n, gate.stride(0), up.stride(0), parts,
                                     BLOCK=block, num_warps=warps, **overlap.options(gate.device))
    return out


def silu_mul(gate_up: Tensor, out: Tensor | None = None) -> Tensor:
    """silu of the first half times the second: [tokens, 2 * inter] -> [tokens, inter].

    The elements of a row lie side by side; `out`, if given, is contiguous.
    """
    tokens, both = gate_up.shape
    if out is None:
        out = torch.empty(tokens, both // 2, dtype=gate_up.dtype, device=gate_up.device)
    return _run(gate_up[:, : both // 2], gate_up[:, both // 2 :], out)


def swiglu(gate: Tensor, up: Tensor, out: Tensor | None = None) -> Tensor:
    """As `infero.model.swiglu`: gate, up [.., inter], perhaps halves of one tensor's rows."""
    shape = gate.shape
    gate, up = (t.reshape(-1, shape[-1]) for t in (gate, up))
    if gate.stride(1) != 1 or up.stride(1) != 1:
        gate, up = gate.contiguous(), up.contiguous()
    if out is None:
        out = torch.empty(shape, dtype=gate.dtype, device=gate.device)
    return _run(gate, up, out).view(shape)


def examples() -> list[Example]:
    """For the cross-compile test."""
    signature = {"gate": "*fp16", "up": "*fp16", "out": "*fp16", "n": "i32", "gate_stride": "i32",
                 "up_stride": "i32", "parts": "i32", "BLOCK": "constexpr", "PDL": "constexpr"}
    return [Example(_silu_mul, signature, {"BLOCK": 2048, "PDL": False}, 8,
                    aligned=("n", "gate_stride", "up_stride"))]
