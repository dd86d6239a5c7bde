"""What `infero tune` may try for products: the shapes of an 8B and a 0.6B model, every format.

A configuration is kept for a format at exactly one shape, since what fills a card with 4,096 rows
wastes half of it with 6,144. Other shapes follow the rules of `matmul.py`. Chapter 15.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from infero import tune
from infero.kernels import formats, language, matmul

# out, in, and what the layer does around the product
SHAPES = ((6144, 4096, "norm"), (4096, 4096, "residual"), (28672, 4096, "swiglu"),
          (4096, 14336, "residual"), (128256, 4096, "norm"),
          (4096, 1024, "norm"), (1024, 2048, "residual"), (6144, 1024, "swiglu"),
          (1024, 3072, "residual"), (151936, 1024, "norm"))
ALL = 1000  # programs a processor: one for each block of rows


def weight_like(kind: str, n: int, k: int, device: Any) -> formats.Weight:
    """A weight of random numbers in the format's own bytes; rounding one would take longer."""
    dtype = torch.bfloat16
    scales = torch.full((n,), k**-0.5 / 64, device=device)
    if kind == "bf16":
        return torch.randn(n, k, dtype=dtype, device=device) * k**-0.5
    if kind == "int8":
        values = torch.randint(-127, 128, (n, k), dtype=torch.int8, device=device)
        return formats.Int8Weight(values, scales, dtype)
    words = torch.randint(-(2**31), 2**31 - 1, (n, -(-k // 128) * 16), dtype=torch.int32,
                          device=device)
    groups = torch.rand(n, -(-k // 128), device=device).mul_(k**-0.5 / 4).to(dtype)
    return formats.Int4Weight(words, groups, None, 128, torch.Size((n, k)))


def prepare(kind: str, n: int, k: int, around: str, tokens: int
            ) -> Callable[[Any], Callable[[tune.Config], Callable[[], Tensor]]]:
    """See `tune.Tunable`."""
    def inputs(device: Any) -> Callable[[tune.Config], Callable[[], Tensor]]:
        weight, swiglu = weight_like(kind, n, k, device), around == "swiglu"
        n_out = n // 2 if swiglu else n
        x = torch.randn(tokens, k, dtype=torch.bfloat16, device=device)
        residual = torch.randn(tokens, n_out, dtype=x.dtype, device=device)
        norm = None if around == "residual" or tokens > 16 else torch.ones_like(x[0])
        out = torch.empty_like(residual)

        def use(config: tune.Config) -> Callable[[], Tensor]:
            def run() -> Tensor:
                launch = matmul.vector if tokens == 1 else matmul.dot
                launch(x, weight, None, norm, 1e-5, residual if around == "residual" else None,
                       swiglu, out, config=config)
                return out
            return run
        return use
    return inputs


def vector_candidates(kind: str, k: int, first: tune.Config) -> list[tune.Config]:
    """Rows a block, words a piece, warps, whether a piece is a row, programs a processor."""
    row = language.power_of_two(-(-k // {"bf16": 2, "int8": 4, "int4": 8}[kind]))
    found = [first]
    for rows, words, warps, programs in (
            (4, row, max(row // 128, 1), 2), (4, row, max(row // 128, 1), ALL),
            (4, row, max(row // 256, 1), 4), (8, row, max(row // 128, 1), 2),
            (8, row, max(row // 64, 1), 2), (2, row, max(row // 256, 1), ALL)):
        if row <= 2048 and warps <= 16:
            found.append({"rows": rows, "words": words, "warps": warps, "whole": True,
                          "programs": programs})
    for rows, words, warps in ((4, 512, 4), (8, 512, 4), (4, 1024, 8), (8, 1024, 8), (8, 256, 4),
                               (16, 256, 4)):
        if words < row:
            found.append({"rows": rows, "words": words, "warps": warps, "whole": False,
                          "programs": 1})
    return found


def dot_candidates(tokens: int, first: tune.Config) -> list[tune.Config]:
    """Rows and tokens a tile, inputs a step, warps, stages, parts of K."""
    found = [first]
    for rows, warps, stages, splits in ((32, 2, 6, 2), (32, 2, 6, 4), (64, 4, 4, 1), (64, 4, 4, 2),
                                        (64, 4, 4, 4), (128, 4, 3, 1), (128, 4, 3, 4),
                                        (128, 4, 3, 8)):
        found.append({"rows": rows, "tokens": tokens, "inputs": 128, "warps": warps,
                      "stages": stages, "splits": splits})
    return found


def different(found: list[tune.Config]) -> list[tune.Config]:
    """Without those that stand there twice."""
    return [c for i, c in enumerate(found) if c not in found[:i]]


def tunables() -> list[tune.Tunable]:
    """One token in every format; 16 and 64 of quantized weights. The 0.6B model in bf16 only."""
    found = []
    for kind in ("bf16", "int8", "int4"):
        for n, k, around in SHAPES if kind == "bf16" else SHAPES[:5]:
            weight = weight_like(kind, n, k, "meta")
            swiglu, size = around == "swiglu", float(weight.nbytes)
            first = matmul.vector_config(weight, swiglu)
            found.append(tune.Tunable(
                "matmul.vector", matmul.shape_class(weight, swiglu),
                different(vector_candidates(kind, k, first)), prepare(kind, n, k, around, 1), size))
            for tokens in (16, 64) if kind != "bf16" and n < 100_000 else ():
                first = matmul.dot_config(weight, tokens, swiglu, False)
                found.append(tune.Tunable(
                    "matmul.dot", matmul.shape_class(weight, swiglu, tokens),
                    different(dot_candidates(tokens, first)), prepare(kind, n, k, around, tokens),
                    size))
    return found
