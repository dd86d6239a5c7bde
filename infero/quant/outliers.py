"""What to do about a few huge activations: share them with the weight, or keep them apart.

A few channels of a transformer's activations are many times larger than the rest, in every token.
They set the scale, and the others are rounded to almost nothing. SmoothQuant (arXiv:2211.10438)
moves a part of their size into the weight; LLM.int8() (arXiv:2208.07339) multiplies them in 16
bits. Chapter 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.model import Layer, ModelConfig
from infero.quant import fold, int8


class Maxima(Protocol):
    """The part of `calibration.Stats` that is used here."""

    @property
    def max_abs(self) -> Tensor: ...  # [in]: the largest magnitude each input channel had


def smoothing_factors(activation_max: Tensor, weight_max: Tensor, alpha: float = 0.5) -> Tensor:
    """What to divide each input channel by so that activations and weight are alike hard to round.

    activation_max, weight_max: [in], the largest magnitude of each input channel in the activations
    and in the weight. alpha: the share of the difficulty that goes to the weight, 0 to 1. The
    factor of channel k is activation_max[k] ** alpha / weight_max[k] ** (1 - alpha); it is 1 where
    either is 0. Returns [in] float32, above 0.
    """
    a, w = activation_max.float(), weight_max.float()
    factors = a ** alpha / w ** (1 - alpha)
    return torch.where((a > 0) & (w > 0), factors, 1.0)


def smooth(config: ModelConfig, layer: Layer, stats: Mapping[str, Maxima], alpha: float = 0.5,
           names: Sequence[str] = fold.MATRICES) -> dict[str, Tensor]:
    """Smooth a layer in place: the model computes the same, up to rounding.

    stats: what each matrix sees on a calibration text, by its name. Every factor is folded into
    what stands before the matrix, so nothing is left to do at run time. Returns the factors [in]
    of each matrix.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha {alpha:g} is no share: choose 0 (nothing moves) to 1 (all).")
    done = {}
    for name in names:
        weight_max = getattr(layer, name).abs().amax(dim=0)
        factors = smoothing_factors(stats[name].max_abs.to(weight_max.device), weight_max, alpha)
        done[name] = fold.free_factors(config, name, factors)
        fold.scale_inputs(config, layer, name, done[name])
    return done


def outlier_columns(activation_max: Tensor, threshold: float = 6.0) -> Tensor:
    """The input channels whose activations reach the threshold, in order: [n] int64.

    activation_max: [in], the largest magnitude of each channel.
    """
    return (activation_max >= threshold).nonzero()[:, 0]


def split(weight: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The weight with these columns at 0, and the columns alone.

    weight: [out, in]; columns: [n] int64. Returns [out, in] to be rounded, [out, n] to be kept.
    """
    rest = weight.clone()
    rest[:, columns] = 0
    return rest, weight[:, columns]


def linear_outliers(x: Tensor, values: Tensor, scales: Tensor, kept: Tensor, columns: Tensor,
                    bias: Tensor | None = None) -> Tensor:
    """x times a split weight transposed: outliers in x's dtype, all the rest in eight bits.

    x: [tokens, in]; values [out, in] int8 and scales [out] of the rest; kept: [out, n] in x's
    dtype; columns: [n]. Without their outliers the tokens' scales are small. Returns [tokens, out].
    """
    rest, large = split(x, columns)
    y = int8.linear_w8a8(rest, values, scales).float()
    y += (large @ kept.t()).float()
    return (y if bias is None else y + bias.float()).to(x.dtype)
