"""A weight whose inputs were put in another order before they were grouped (GPTQ's act-order).

GPTQ rounds the columns with the largest inputs first, and some programs (`desc_act` in their files)
let the groups follow that order: the inputs that share a scale lie all over the row. Sorted by
group they are contiguous again and any kernel can multiply them, if x is put in the same order.
That gather is one more launch. Chapter 5; arXiv:2210.17323.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infero.kernels import formats


@dataclass(repr=False, eq=False)
class OrderedWeight(formats._Format):
    """w[n, order[k]] = plain[n, k]: the weight's columns, sorted so that groups are contiguous."""

    plain: formats.Int4Weight  # [out, in], columns in the order of their groups
    order: Tensor  # [in] int64: which input each column of `plain` belongs to

    @property
    def shape(self) -> torch.Size:
        return self.plain.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.plain.dtype

    def tensors(self) -> list[Tensor]:
        """Every tensor of the weight."""
        return [*self.plain.tensors(), self.order]

    def to(self, device: str | torch.device) -> OrderedWeight:
        """The same weight on another device."""
        return OrderedWeight(self.plain.to(device), self.order.to(device))

    def dequantize(self) -> Tensor:
        """The weight with its columns where they belong: [out, in] in `dtype`."""
        sorted_columns = self.plain.dequantize()
        out = torch.empty_like(sorted_columns)
        out[:, self.order] = sorted_columns
        return out

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] gathered into the columns' order, then the product of any int4 weight."""
        from infero import kernels

        return kernels.linear(x.index_select(1, self.order), self.plain, bias)
