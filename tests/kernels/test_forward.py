"""Attention of a batch through the kernels for decoding and for chunks, and what they are given."""

from __future__ import annotations

import pytest
import torch

from infero import model as m
from infero.cache import contiguous
from infero.kernels import forward, language
from infero.model import random_model
from tests.conftest import tiny_config

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("size", [1, 16, 24, 30, 25])
@pytest.mark.skipif(not language.available(), reason="no Triton here")
def test_blocks_of_any_size(size: int) -> None:
    """A contiguous cache's blocks are as long as its longest request, whatever that is."""
    config = tiny_config(num_layers=1)
    cache = contiguous.allocate(config, 3, size, torch.float32, DEVICE)
    draw = torch.Generator().manual_seed(size)
    cache.k.copy_(torch.randn(cache.k.shape, generator=draw))
    cache.v.copy_(torch.randn(cache.v.shape, generator=draw))
    lens = [1, min(size, 7), 1]
    batch = contiguous.next_batch(cache, [size - n for n in lens], lens)
    q = torch.randn(sum(lens), config.num_heads, config.head_dim, generator=draw).to(DEVICE)
    want = m.attend(q, cache.k[0], cache.v[0], batch, 0.3, None)
    torch.testing.assert_close(forward.attend(q, cache.k[0], cache.v[0], batch, 0.3, None), want,
                               atol=2e-5, rtol=2e-5)


def test_pages_are_worked_out_once() -> None:
    model = random_model(tiny_config(num_layers=1))
    cache = contiguous.allocate(model.config, 2, 24, torch.float32, "cpu")
    batch = contiguous.next_batch(cache, [0, 3], [2, 1])
    tables, size = forward.pages(batch)
    assert size == 8 and tables.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert forward.pages(batch)[0] is tables
