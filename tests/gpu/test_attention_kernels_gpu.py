"""The attention kernels compiled for the GPU, against float64, in graphs and again and again."""

from __future__ import annotations

import random

import pytest
import torch

from infero.kernels import decode, flash, flash_tma
from tests.kernels import test_decode as one
from tests.kernels import test_flash as many
from tests.test_kernels import scene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
LENS = [(130, 130), (1, 40), (300, 900), (37, 600), (5, 5)]


@pytest.mark.parametrize("shape,dtype,window,queries,options", [
    ((32, 8, 128, 16), BF16, None, 1, {}),
    ((32, 8, 128, 16), BF16, None, 1, {"splits": 7}),
    ((16, 8, 128, 16), BF16, None, 1, {"splits": 4, "deterministic": True}),
    ((9, 3, 64, 16), FP16, 100, 3, {"splits": 5}),
    ((9, 3, 64, 16), FP32, None, 1, {"splits": 5}),
    ((4, 4, 80, 1), BF16, 7, 1, {"splits": 3}),
    ((6, 2, 96, 32), FP16, None, 2, {"splits": 2, "config": decode.Config(ticket=False)}),
    ((8, 1, 256, 128), BF16, None, 2, {"splits": 3}),
], ids=str)
def test_decode(shape: one.Shape, dtype: torch.dtype, window: int | None, queries: int,
                options: dict) -> None:
    contexts = [queries, 15, 64, 0, 300, 1777, 4096]
    results = [one.check(shape, dtype, contexts, window, queries, "cuda", **options)
               for _ in range(3)]
    assert all(torch.equal(results[0], again) for again in results[1:])


def test_deterministic_decode_does_not_depend_on_batch_or_splits() -> None:
    contexts = [5000, 3, 300, 256, 1024]
    q, k, v, batch = one.padded(contexts, 0, (32, 8, 128, 16), BF16)
    q, k, v, tables = (t.cuda() for t in (q, k, v, batch.block_tables.int()))
    lengths = torch.tensor(contexts, dtype=torch.int32, device="cuda")

    def run(rows: slice, splits: int) -> torch.Tensor:
        return decode.attention(q[rows], k, v, tables[rows], lengths[rows], 16, 0.088,
                                splits=splits, deterministic=True)

    both = run(slice(None), 1)
    for splits in (2, 7, 40):
        assert torch.equal(run(slice(None), splits), both)
        for r in range(len(contexts)):
            assert torch.equal(run(slice(r, r + 1), splits), both[r : r + 1])


def test_a_captured_decode_reads_lengths_and_tables_when_replayed() -> None:
    q, k, v, batch = one.padded([700, 900, 33], 0, (16, 8, 128, 16), BF16)
    q, k, v, tables = (t.cuda() for t in (q, k, v, batch.block_tables.int()))
    lengths = torch.tensor([700, 900, 33], dtype=torch.int32, device="cuda")
    decode.attention(q, k, v, tables, lengths, 16, 0.088, splits=4)
    out, graph = torch.empty_like(q), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decode.attention(q, k, v, tables, lengths, 16, 0.088, splits=4, out=out)
    for contexts in ([700, 900, 33], [1, 0, 20], [512, 513, 0], [699, 16, 17]):
        lengths.copy_(torch.tensor(contexts))
        out.fill_(torch.nan)
        graph.replay()
        want = decode.attention(q, k, v, tables, lengths, 16, 0.088, splits=4)
        assert torch.equal(out, want) and not decode.tickets(q.device).any()


def test_decode_again_and_again_is_the_same() -> None:
    q, k, v, batch = one.padded([2000, 4096, 1, 777], 0, (32, 8, 128, 16), BF16)
    q, k, v, tables = (t.cuda() for t in (q, k, v, batch.block_tables.int()))
    lengths = torch.tensor(batch.context_lens, dtype=torch.int32, device="cuda")
    first = decode.attention(q, k, v, tables, lengths, 16, 0.088, splits=16)
    for _ in range(300):
        assert torch.equal(decode.attention(q, k, v, tables, lengths, 16, 0.088, splits=16), first)


@pytest.mark.parametrize("shape,dtype,window", [
    ((32, 8, 128, 16), BF16, None), ((9, 3, 64, 16), FP16, 100), ((9, 3, 64, 16), FP32, None),
    ((4, 4, 80, 1), BF16, None), ((6, 2, 96, 32), FP16, 7), ((8, 1, 256, 128), BF16, None),
], ids=str)
def test_flash(shape: many.Shape, dtype: torch.dtype, window: int | None) -> None:
    first = many.check(shape, dtype, LENS, window, "cuda")
    again = many.check(shape, dtype, LENS, window, "cuda")
    assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("copies", ["threads", "bulk", pytest.param(
    "specialised", marks=pytest.mark.xfail(reason="not on every version of Triton"))])
def test_ways_to_copy_dense_keys_agree(copies: str, dim: int) -> None:
    if copies != "threads" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("the bulk copy engine's kernel is for Hopper")
    config = flash.Config(128, 128, 4 if copies == "specialised" else 8, 2, copies=copies)
    rng = random.Random(dim)
    for trial in range(6):
        lens = [(n, n + rng.choice([0, 0, 3, 200])) for n in rng.choices(range(1, 700), k=5)]
        q, k, v, batch = scene(trial, lens, 8, 2, dim, 16, BF16, ordered=True)
        flat = [torch.cat([t[slots] for slots in batch.context_slots]).cuda() for t in (k, v)]
        where = (many.starts(batch.query_lens, "cuda"), many.starts(batch.context_lens, "cuda"))
        longest = max(batch.query_lens)
        results = [torch.full_like(q, torch.nan, device="cuda") for _ in range(2)]
        assert flash_tma.usable(q.cuda(), *flat, results[0]) or copies == "threads"
        for out, way in zip(results, (config, flash.Config()), strict=True):
            flash.dense(q.cuda(), *flat, *where, dim**-0.5, longest_query=longest, out=out,
                        config=way)
        torch.testing.assert_close(*results, atol=2e-2, rtol=2e-2)
        for _ in range(20):
            again = flash.dense(q.cuda(), *flat, *where, dim**-0.5, longest_query=longest,
                                config=config)
            assert torch.equal(again, results[0])


def test_the_host_does_not_wait() -> None:
    q, k, v, batch = scene(0, LENS, 8, 2, 64, 16, BF16)
    q, k, v, tables = (t.cuda() for t in (q, k, v, batch.block_tables.int()))
    where, lengths = many.starts(batch.query_lens, "cuda"), torch.tensor(
        batch.context_lens, dtype=torch.int32, device="cuda")
    for mode in ("default", "error"):  # the first time compiles
        torch.cuda.set_sync_debug_mode(mode)
        try:
            flash.attention(q, k, v, where, lengths, tables, 16, 0.125, longest_query=300)
            decode.attention(q[:5], k, v, tables, lengths, 16, 0.125, splits=3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
