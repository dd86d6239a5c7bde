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

from infero import kernels
from infero.kernels import formats, language, torch_ops

FUSED = 16  # tokens up to which a product and its neighbours are one launch
# Tokens up to which quantized weights are unpacked by the kernel that multiplies: above, unpacking
# once for cuBLAS is faster. FP8 has its own product at any size.
UNPACKED = {formats.Int4Weight: 512, formats.Int8Weight: 256, formats.Fp8Weight: 1 << 30}


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
    if not len(x):  # a chunk that ends no prompt has no row for the head
        outputs = weight.shape[0] // 2 if swiglu else weight.shape[0]
        return torch.empty((0, outputs), dtype=out_dtype or x.dtype, device=x.device)
    if not usable(x, weight):
        return composed(x, weight, bias, norm, eps, residual, swiglu, out_dtype)
    few = len(x) <= FUSED
    if deterministic or (few and (len(x) == 1 or kernels.attends(x.device))):
        return _one_launch(x, weight, bias, norm, eps, residual, swiglu, out_dtype, deterministic)
    if norm is not None:
        x = _rms_norm(x, norm, eps)
    if not isinstance(weight, Tensor):
        if len(x) <= UNPACKED[type(weight)] and kernels.attends(x.device):
            return _one_launch(x, weight, bias, None, eps, residual, swiglu, out_dtype)
        weight = _dequantize(weight)
    if swiglu:
        y = _silu_mul(F.linear(x, weight, bias))
        y = y if residual is None else residual.add_(y)
    elif residual is not None and bias is None and residual.dtype == x.dtype:
        y = residual.addmm_(x, weight.t())
    else:
        y = F.linear(x, weight, bias)
        y = y if residual is None else residual.add_(y)
    return y if out_dtype is None else y.to(out_dtype)


def usable(x: Tensor, weight: formats.Weight) -> bool:
    """Whether infero's kernels compute this product."""
    if not kernels.triton(x.device) or x.dim() != 2 or not len(x):
        return False
    if not isinstance(weight, (Tensor, *UNPACKED)):  # a format with a product of its own
        return False
    if not kernels.attends(x.device) and len(x) > 1:  # no tensor cores for Triton here
        return False
    if isinstance(weight, formats.Fp8Weight) and len(x) > 1 and x.is_cuda:
        return language.capability(x.device) >= (8, 9)
    return x.dtype in (torch.float16, torch.bfloat16, torch.float32) and x.stride(1) == 1


def _one_launch(x: Tensor, weight: formats.Weight, bias: Tensor | None, norm: Tensor | None,
                eps: float, residual: Tensor | None, swiglu: bool, out_dtype: torch.dtype | None,
                same: bool = False) -> Tensor:
    from infero.kernels import matmul

    n = weight.shape[0] // 2 if swiglu else weight.shape[0]
    dtype = x.dtype if out_dtype is None else out_dtype
    if (residual is not None and residual.dtype == dtype and residual.is_contiguous()
            and residual.data_ptr() != x.data_ptr()):
        out = residual  # each number is read and written by the same thread
    else:
        out = torch.empty((len(x), n), dtype=dtype, device=x.device)
    if isinstance(weight, formats.Fp8Weight) and len(x) > FUSED and not same and x.is_cuda:
        from infero.kernels import matmul_convert

        x, x_scales = matmul_convert.to_fp8(x)  # bytes times bytes
        matmul.dot(x, weight, bias, None, eps, residual, swiglu, out, x_scales=x_scales)
        return out
    return matmul.skinny(x, weight, bias, norm, eps, residual, swiglu, out, same=same)


def _dequantize(weight: formats.Quantized) -> Tensor:
    from infero.kernels import matmul_convert

    return matmul_convert.dequantize(weight)


def _rms_norm(x: Tensor, norm: Tensor, eps: float) -> Tensor:
    from infero.kernels import norms

    return norms.rms_norm(x, norm, eps)


def _silu_mul(gate_up: Tensor) -> Tensor:
    from infero.kernels import activations

    return activations.silu_mul(gate_up)


def composed(x: Tensor, weight: formats.Weight, bias: Tensor | None, norm: Tensor | None,
             eps: float, residual: Tensor | None, swiglu: bool,
             out_dtype: torch.dtype | None) -> Tensor:
    """The same, one call an operation: the oracle, and what runs without Triton.

    A format with a product of its own comes here on a GPU too, where the operations around it are
    kernels.
    """
    own = not isinstance(weight, (Tensor, *UNPACKED)) and kernels.triton(x.device)
    if norm is not None:
        x = (_rms_norm if own else torch_ops.rms_norm)(x, norm, eps)
    y = F.linear(x, weight, bias) if isinstance(weight, Tensor) else weight.multiply(x, bias)
    y = y.contiguous()  # a library may give the transposed product; kernels read rows
    if swiglu and own:
        y = _silu_mul(y)
    elif swiglu:
        y = torch_ops.swiglu(*y.chunk(2, dim=-1))
    if residual is not None:
        y = residual + y
    return y if out_dtype is None else y.to(out_dtype)
