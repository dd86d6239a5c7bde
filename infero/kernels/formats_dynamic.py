"""Weights of one byte whose products round the activations too, or keep some of them apart.

`W8A8Weight` (ZeroQuant, arXiv:2206.01861; SmoothQuant, arXiv:2211.10438): each token is rounded to
eight bits with a scale of its own, and bytes are multiplied with bytes. `OutlierWeight`
(LLM.int8(), arXiv:2208.07339): the input channels of the largest activations stay in 16 bits. The
products are those of `infero/quant` in PyTorch; on a GPU, a Triton kernel for the rounding and one
for the bytes. Chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero import kernels
from infero.kernels import formats
from infero.quant import int8, outliers


@dataclass(repr=False, eq=False)
class W8A8Weight(formats._Format):
    """w[n, k] = values[n, k] * scales[n], for activations rounded to eight bits token by token."""

    values: Tensor  # [out, in] int8
    scales: Tensor  # [out] float32
    dtype: torch.dtype = torch.bfloat16  # of the activations before they are rounded

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def dequantize(self) -> Tensor:
        """The weight alone, without what rounding x does: [out, in] in `dtype`."""
        return (self.values.float() * self.scales[:, None]).to(self.dtype)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in], rounded, times the weight transposed: [tokens, out] in x's dtype."""
        if _launchable(x):
            return _bytes_by_bytes(x, self, bias)
        return int8.linear_w8a8(x, self.values, self.scales, bias)


@dataclass(repr=False, eq=False)
class OutlierWeight(formats._Format):
    """A `W8A8Weight` but for some columns, which are kept as they were with their activations."""

    values: Tensor  # [out, in] int8, 0 in the columns that are kept
    scales: Tensor  # [out] float32, of the rest
    kept: Tensor  # [out, columns] in `dtype`
    columns: Tensor  # [columns] int64

    @property
    def dtype(self) -> torch.dtype:
        return self.kept.dtype

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def dequantize(self) -> Tensor:
        """The weight alone: [out, in] in `dtype`."""
        whole = self.values.float() * self.scales[:, None]
        return whole.index_copy(1, self.columns, self.kept.float()).to(self.dtype)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] times the weight transposed: large channels in `dtype`, the rest bytes."""
        if not _launchable(x):
            return outliers.linear_outliers(x, self.values, self.scales, self.kept, self.columns,
                                            bias)
        large = F.linear(x.index_select(1, self.columns), self.kept, bias)
        rest = x.index_fill(1, self.columns, 0)
        return large.add_(_bytes_by_bytes(rest, self, None))


def quantize_w8a8(weight: Tensor) -> W8A8Weight:
    """Round a weight [out, in] to the nearest, one scale a row."""
    rounded = formats.quantize(weight, "int8")
    assert isinstance(rounded, formats.Int8Weight)
    return W8A8Weight(rounded.values, rounded.scales, weight.dtype)


def quantize_outliers(weight: Tensor, columns: Tensor) -> OutlierWeight:
    """Round all but some columns of a weight [out, in] to the nearest, one scale a row.

    columns: [n] int64, the input channels whose activations are too large to be rounded, as
    `outliers.outlier_columns` finds them.
    """
    rest, kept = outliers.split(weight, columns)
    rounded = quantize_w8a8(rest)
    return OutlierWeight(rounded.values, rounded.scales, kept.contiguous(), columns)


def _launchable(x: Tensor) -> bool:
    """Whether Triton multiplies here, and no learner's function stands in its place."""
    own = all(vars(int8)[name].__globals__ is vars(int8)
              for name in ("linear_w8a8", "quantize_tokens", "multiply"))
    return (own and x.dim() == 2 and len(x) > 0 and x.stride(1) == 1 and kernels.attends(x.device))


def _bytes_by_bytes(x: Tensor, weight: W8A8Weight | OutlierWeight, bias: Tensor | None) -> Tensor:
    from infero.kernels import matmul, matmul_convert

    out = torch.empty((len(x), weight.shape[0]), dtype=x.dtype, device=x.device)
    rounded, scales = matmul_convert.to_int8(x)
    as_bytes: Any = weight
    matmul.dot(rounded, as_bytes, bias, None, 0.0, None, False, out, x_scales=scales)
    return out
