"""A rounding tried out on a model before there is a kernel for it.

`replaced` gives a model with other matrices; `Rounded` is a matrix whose activations pass through a
function first, so that any way of rounding them can be judged by what the model then predicts. It
computes in the dtype of the weight and is no faster for it. Chapter 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.kernels import formats
from infero.model import Model
from infero.quant.fold import MATRICES


@dataclass(repr=False, eq=False)
class Rounded(formats._Format):
    """A weight [out, in] whose activations x [tokens, in] become rounds(x) before the product."""

    weight: Tensor
    rounds: Callable[[Tensor], Tensor]

    @property
    def shape(self) -> torch.Size:
        return self.weight.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def dequantize(self) -> Tensor:
        """The weight alone."""
        return self.weight

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """rounds(x) times the weight transposed."""
        return F.linear(self.rounds(x), self.weight, bias)


def replaced(model: Model, make: Callable[[int, str, Tensor], Any]) -> Model:
    """The model with make(layer, name, weight) in the place of every matrix of its layers.

    name: "qkv", "o", "gate_up" or "down"; what `make` returns is a tensor or one of the formats.
    The model itself is left alone; norms, the embedding and the head are shared with it.
    """
    layers = [dataclasses.replace(layer, **{name: make(index, name, getattr(layer, name))
                                            for name in MATRICES})
              for index, layer in enumerate(model.layers)]
    return dataclasses.replace(model, layers=layers)
