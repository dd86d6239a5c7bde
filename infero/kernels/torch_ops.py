"""The small operations in few PyTorch calls: what they cost is mostly the calls themselves.

A decode step of a small model on a CPU runs thousands of operations on a few hundred numbers each,
a microsecond of work and one to three of overhead apiece. Each function here equals the plain one
of `infero/model.py` up to rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `infero.model.rms_norm`.

    A GPU has a fused kernel for it. PyTorch on a CPU runs eight operations; but the layer norm of
    (x, -x) has mean 0 and variance mean(x**2), so that its first half is the same thing, in four.
    A mean of 0 up to rounding costs a small element beside a giant its sixth digit: too much for
    float32, nothing to bfloat16.
    """
    size = x.shape[-1]
    if not x.is_cpu or x.dtype != torch.bfloat16:
        return F.rms_norm(x, (size,), weight, eps)
    both, weights = torch.cat((x, -x), dim=-1), torch.cat((weight, weight))
    return F.layer_norm(both, (2 * size,), weights, None, eps)[..., :size]


def rotation(positions: Tensor, inv_freq: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of every token's angles: two tensors [tokens, 1, dim].

    They are the same in every layer. The first half of the sines is negative, because a rotation
    takes `second * sin` from the first half and adds `first * sin` to the second.
    """
    angles = positions.float()[:, None] * inv_freq
    sin, cos = angles.sin(), angles.cos()
    return torch.cat((cos, cos), 1)[:, None].to(dtype), torch.cat((-sin, sin), 1)[:, None].to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `infero.model.rope`, given the rotation: x [tokens, heads, dim]."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """As `infero.model.swiglu`."""
    return F.silu(gate).mul_(up)
