"""A matrix product of the forward pass in one call, with its neighbours where that pays.

A decoder layer is four products, and around each stands something small: a norm before it, a
residual added after it, SwiGLU between two halves of its result. At batch 1 a launch of its own for
each costs more than its work, so the skinny kernels of `matmul.py` do it on the way. With many
tokens the product dominates; it is cuBLAS's, or a kernel that unpacks the weight as it goes, and
the neighbours are launches of their own. Chapters 15 and 16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.kernels import formats, torch_ops


def linear(x: Tensor, weight: formats.Weight, bias: Tensor | None = None, *,
           norm: Tensor | None = None, eps: float = 1e-5, residual: Tensor | None = None,
           swiglu: bool = False, deterministic: bool = False,
           out_dtype: torch.dtype | None = None) -> Tensor:
    """x [tokens, in] times weight [out, in] transposed, with what stands around it in a layer.

    In this order: x is divided by its root mean square and multiplied by `norm` [in] where that is
    given; the product; plus `bias` [out]; with `swiglu` the first half of the outputs is the gate
    and silu(gate) * up [tokens, out / 2] remains; plus `residual`, which may be overwritten with
    the result. `deterministic`: a row's result is the same bits whatever the other rows are.
    """
    return composed(x, weight, bias, norm, eps, residual, swiglu, out_dtype)


def composed(x: Tensor, weight: formats.Weight, bias: Tensor | None, norm: Tensor | None,
             eps: float, residual: Tensor | None, swiglu: bool,
             out_dtype: torch.dtype | None) -> Tensor:
    """The same in PyTorch, one call an operation: the oracle, and what runs without Triton."""
    if norm is not None:
        x = torch_ops.rms_norm(x, norm, eps)
    dense = weight if isinstance(weight, Tensor) else weight.dequantize()
    y = F.linear(x, dense, bias)
    if swiglu:
        gate, up = y.chunk(2, dim=-1)
        y = torch_ops.swiglu(gate, up)
    if residual is not None:
        y = residual + y
    return y if out_dtype is None else y.to(out_dtype)
