"""Chapter 14's formulas for the traffic of attention, against what the kernels load and store."""

from __future__ import annotations

import pytest
import torch

from infero.kernels import language
from infero.kernels.steps import attention, attention_io

interpreted = pytest.mark.skipif(not (language.available() and language.INTERPRETED),
                                 reason="counts what the interpreter loads")


@interpreted
@pytest.mark.parametrize("shape", [(16, 16, 16), (40, 40, 16), (5, 37, 32), (33, 70, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_flash_moves_what_the_formula_says(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    queries, context, dim = shape
    q = torch.randn(queries, 2, dim).to(dtype)
    k, v = torch.randn(context, 1, dim).to(dtype), torch.randn(context, 1, dim).to(dtype)
    rows, keys, _ = attention.tile_sizes(q)
    want = attention_io.flash_traffic(queries, context, dim, rows, keys, dtype.itemsize)
    with attention_io.counted() as moved:
        attention.flash(q, k, v, 1.0)
    assert (moved.read, moved.written) == (2 * want.read, 2 * want.written)  # two heads
    with attention_io.counted() as none:
        pass
    attention.flash(q, k, v, 1.0)
    assert none.total == 0, "nothing is counted outside"


def test_causal_tiles() -> None:
    assert attention_io.tiles(8, 8, 4, 4) == [(0, 0), (1, 0), (1, 1)]
    assert attention_io.tiles(8, 8, 4, 4, causal=False) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert attention_io.tiles(2, 9, 4, 4) == [(0, 0), (0, 1), (0, 2)]
    n, size = 4096, 64
    half = len(attention_io.tiles(n, n, size, size)) / (n // size) ** 2
    assert half == pytest.approx(0.5 + 0.5 * size / n)


def test_tiles_and_traffic_agree() -> None:
    for queries, context, rows, keys in ((64, 64, 16, 8), (30, 50, 16, 16), (7, 7, 8, 4)):
        moved = attention_io.flash_traffic(queries, context, 16, rows, keys, 1)
        loaded = sum(min(keys, context - j * keys)
                     for _, j in attention_io.tiles(queries, context, rows, keys))
        assert moved.read == queries * 16 + 2 * loaded * 16


def test_the_naive_way_moves_the_scores_four_times() -> None:
    moved = attention_io.naive_traffic(1000, 1000, 64)
    assert moved.total == 2 * (4 * 1000**2 + 4 * 1000 * 64)
