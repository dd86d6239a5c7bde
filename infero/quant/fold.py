"""Moving a factor for each input channel from a matrix into what stands before it.

Dividing channel k of a matrix's input by s[k] and multiplying column k of the matrix by s[k]
changes nothing but the rounding: SmoothQuant (arXiv:2211.10438) and AWQ (arXiv:2306.00978) choose s
so that the rounding hurts less. The division costs nothing at run time where the operation before
can take it: a norm's weight, or the rows of the matrix before. Chapters 4 and 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.model import Layer, ModelConfig

MATRICES = ("qkv", "o", "gate_up", "down")


def free_factors(config: ModelConfig, name: str, factors: Tensor) -> Tensor:
    """The nearest factors that can be folded: one a channel that exists before the matrix.

    name: "qkv", "o", "gate_up" or "down". factors: [in] above 0. The inputs of `o` are the values
    of the KV heads, each read by heads / kv_heads query heads: their factors become the geometric
    mean of the group. Elsewhere every channel has its own. Returns [in].
    """
    if name != "o":
        return factors
    groups = config.num_heads // config.num_kv_heads
    shaped = factors.log().view(config.num_kv_heads, groups, config.head_dim)
    return shaped.mean(dim=1, keepdim=True).expand_as(shaped).reshape(-1).exp()


def scale_inputs(config: ModelConfig, layer: Layer, name: str, factors: Tensor) -> None:
    """Multiply the matrix's columns by `factors` and divide its inputs by them, in place.

    name: one of MATRICES; factors: [in], as `free_factors` returns them. Computed in float32. The
    layer's tensors are replaced, never written into.
    """
    if name not in MATRICES:
        raise ConfigError(f"A layer has no matrix {name!r}; it has {', '.join(MATRICES)}.")
    weight = getattr(layer, name)
    if factors.shape != weight.shape[1:] or not bool((factors > 0).all()):
        raise ConfigError(f"{name} takes {weight.shape[1]} factors above 0, one an input channel; "
                          f"given were {factors.numel()}, the smallest {float(factors.min()):g}.")
    factors = factors.float()
    setattr(layer, name, _times(weight, factors))
    if name in ("qkv", "gate_up"):
        norm = "input_norm" if name == "qkv" else "post_norm"
        setattr(layer, norm, _times(getattr(layer, norm), 1 / factors))
    elif name == "o":
        if not torch.equal(factors, free_factors(config, "o", factors)):
            shaped = factors.view(config.num_kv_heads, -1, config.head_dim)
            if not torch.allclose(shaped, shaped[:, :1].expand_as(shaped), rtol=1e-4):
                raise ConfigError("Query heads that share a KV head must share the factors of o's "
                                  "inputs: pass them through free_factors first.")
        per_value = factors.view(config.num_kv_heads, -1, config.head_dim)[:, 0].reshape(-1)
        rows = layer.qkv.shape[0] - per_value.numel()
        _divide_rows(layer, "qkv", rows, per_value)
    else:
        _divide_rows(layer, "gate_up", layer.gate_up.shape[0] // 2, factors)


def _times(t: Tensor, factors: Tensor) -> Tensor:
    return (t.float() * factors).to(t.dtype)


def _divide_rows(layer: Layer, name: str, first: int, factors: Tensor) -> None:
    """Divide the rows of a matrix from `first` on, and their biases, by factors [rows]."""
    divisor = torch.cat((torch.ones(first, device=factors.device), factors))
    weight, bias = getattr(layer, name), getattr(layer, f"{name}_bias")
    setattr(layer, name, _times(weight, 1 / divisor[:, None]))
    if bias is not None:
        setattr(layer, f"{name}_bias", _times(bias, 1 / divisor))
