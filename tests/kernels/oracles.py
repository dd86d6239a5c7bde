"""What the small kernels must compute, in float64, and awkward inputs: used on CPU and GPU.

Outputs are filled with NaN before the call wherever a kernel is given one, so that an element it
forgot shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero import model as m

ROUNDING = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # one unit, relative


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32,
          device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).to(device)


def poisoned(*shape: int, dtype: torch.dtype, device: str | torch.device = "cpu") -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype, device=device)


def close(got: Tensor, want: Tensor, units: float = 1.0, absolute: float | None = None) -> None:
    """got equals the exact `want` up to `units` roundings of got's dtype."""
    tolerance = ROUNDING[got.dtype] * units
    torch.testing.assert_close(got.double().cpu(), want.double().cpu(), rtol=tolerance,
                               atol=tolerance * 0.1 if absolute is None else absolute)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.double()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.double()


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return gate.double() * torch.sigmoid(gate.double()) * up.double()


def rope(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """Angles are float32 by contract; everything after them is float64."""
    angles = (positions.float()[:, None] * inv_freq).double()
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x.double().chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def rotate_and_write(qkv: Tensor, positions: Tensor, slots: Tensor, inv_freq: Tensor,
                     k_cache: Tensor, v_cache: Tensor, heads: int, kv_heads: int,
                     q_norm: Tensor | None, k_norm: Tensor | None, eps: float) -> Tensor:
    """As the kernel's contract says; the caches are float64 and are written in place."""
    dim = 2 * inv_freq.shape[0]
    q, k, v = qkv.view(len(qkv), heads + 2 * kv_heads, dim).split((heads, kv_heads, kv_heads), 1)
    if q_norm is not None and k_norm is not None:
        q, k = rms_norm(q, q_norm, eps), rms_norm(k, k_norm, eps)
    written = slots >= 0
    k_cache[slots[written].long()] = rope(k, positions, inv_freq)[written]
    v_cache[slots[written].long()] = v.double()[written]
    return rope(q, positions, inv_freq)


def frequencies(dim: int, theta: float = 10_000.0) -> Tensor:
    return m.rope_frequencies(m.ModelConfig("llama", 8, 8, 8, 1, 1, 1, dim, 8, rope_theta=theta))
