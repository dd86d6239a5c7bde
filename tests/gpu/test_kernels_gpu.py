"""Attention of ragged paged batches on a CUDA device, without making the host wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from infero import model as m
from infero.kernels import paged_attention, varlen
from tests.test_kernels import MIXES, TOLERANCE, close, exact, scene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
CUDA = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 2e-5}


@pytest.fixture(autouse=True)
def _strict_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    monkeypatch.setitem(TOLERANCE, torch.float16, 4e-3)


@contextmanager
def no_waiting() -> Iterator[None]:
    """An operation that makes the host wait for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def on_gpu(batch: m.Batch) -> m.Batch:
    tensors = (batch.positions, batch.slots, batch.block_tables)
    return m.Batch(*(t.cuda() for t in tensors), batch.block_size, batch.query_lens,
                   batch.context_lens)


@pytest.mark.parametrize("dtype", CUDA, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("window", [None, 1, 6, 1000])
@pytest.mark.parametrize("lens", MIXES.values(), ids=MIXES.keys())
def test_attention_of_a_ragged_paged_batch(lens: list[tuple[int, int]], window: int | None,
                                           dtype: torch.dtype) -> None:
    for seed, (heads, kv_heads, dim, size) in enumerate([(9, 3, 64, 16), (4, 1, 128, 16)]):
        q, k, v, batch = scene(seed, lens, heads, kv_heads, dim, size, dtype)
        want = exact(q, k, v, batch, dim**-0.5, window)
        there, q, k, v = on_gpu(batch), q.cuda(), k.cuda(), v.cuda()
        paged_attention.attend(q, k, v, on_gpu(batch), dim**-0.5, window)  # warm up
        if batch.block_tables.shape[1] > 1:
            with no_waiting():
                got = paged_attention.attend(q, k, v, there, dim**-0.5, window)
        else:
            got = paged_attention.attend(q, k, v, there, dim**-0.5, window)
        close(got.cpu(), want, dtype)


def test_sixteen_bits_take_one_launch_of_attention() -> None:
    q, k, v, batch = scene(0, MIXES["everything"], 9, 3, 64, 16, torch.bfloat16)
    q, k, v, batch = q.cuda(), k.cuda(), v.cuda(), on_gpu(batch)
    assert varlen.usable(q, batch) == (torch.cuda.get_device_capability() >= (8, 0))
    assert not varlen.usable(q.float(), batch)


def test_the_forward_pass_does_not_wait() -> None:
    from infero.cache import kv
    from tests.conftest import tiny_config

    model = m.random_model(tiny_config(), seed=1, device="cuda", dtype=torch.bfloat16)
    _, _, _, batch = scene(0, MIXES["everything"], 6, 2, 8, 16, torch.bfloat16)
    cache = kv.empty(model.config, int(batch.block_tables.max()) + 1, 16, model.dtype, "cuda")
    ids = torch.arange(len(batch.slots), device="cuda")
    m.forward(model, ids, on_gpu(batch), cache)
    there = on_gpu(batch)
    with no_waiting():
        m.forward(model, ids, there, cache)
