"""Decode attention against its definition in float64; interpreted here, compiled in tests/gpu."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infero import model as m
from infero.errors import ParameterError
from infero.kernels import decode
from tests.test_kernels import exact, scene

Shape = tuple[int, int, int, int]  # heads, KV heads, head dim, block size
SHAPES: list[Shape] = [(6, 2, 64, 16), (2, 2, 6, 1), (8, 1, 80, 4), (2, 1, 128, 64)]
CONTEXTS = [1, 16, 17, 0, 65, 300]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """Equal up to the rounding of `dtype`; `want` is exact."""
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want.double(), atol=TOLERANCE[dtype],
                               rtol=TOLERANCE[dtype])


def run(q: Tensor, k: Tensor, v: Tensor, batch: m.Batch, scale: float, window: int | None,
        queries: int = 1, device: str = "cpu", **options: object) -> Tensor:
    """The kernel on a batch; its output was full of NaN before."""
    q, k, v, tables = (t.to(device) for t in (q, k, v, batch.block_tables))
    contexts = torch.tensor(batch.context_lens, dtype=torch.int32, device=device)
    out = torch.full_like(q, torch.nan)
    got = decode.attention(q, k, v, tables.int(), contexts, batch.block_size, scale, window,
                           queries=queries, out=out, **options)  # type: ignore[arg-type]
    assert got is out
    assert not decode.tickets(out.device).any(), "a ticket was not handed back"
    return out.cpu()


def padded(contexts: list[int], seed: int, shape: Shape, dtype: torch.dtype,
           queries: int = 1) -> tuple[Tensor, Tensor, Tensor, m.Batch]:
    """A batch whose requests of context 0 are padding with `queries` rows of their own."""
    heads, kv_heads, dim, size = shape
    real = [c for c in contexts if c]
    q, k, v, batch = scene(seed, [(queries, c) for c in real], heads, kv_heads, dim, size, dtype)
    rows, tables, taken = [], [], 0
    for c in contexts:
        at = slice(taken * queries, (taken + 1) * queries)
        rows.append(q[at] if c else torch.full((queries, heads, dim), torch.nan, dtype=dtype))
        tables.append(batch.block_tables[taken] if c else
                      torch.full_like(batch.block_tables[0], 10**6))
        taken += bool(c)
    batch = m.Batch(batch.positions, batch.slots, torch.stack(tables), size,
                    [queries if c else 0 for c in contexts], contexts)
    return torch.cat(rows), k, v, batch


def check(shape: Shape, dtype: torch.dtype, contexts: list[int], window: int | None = None,
          queries: int = 1, device: str = "cpu", seed: int = 0, **options: object) -> Tensor:
    """Compare with the definition: real rows up to rounding, padded rows exactly 0."""
    q, k, v, batch = padded(contexts, seed, shape, dtype, queries)
    scale = shape[2] ** -0.5
    got = run(q, k, v, batch, scale, window, queries, device, **options)
    real = torch.tensor([bool(c) for c in contexts]).repeat_interleave(queries)
    want = exact(q[real], k, v, batch, scale, window)
    assert not got[~real].any(), "a padded row is not 0"
    close(got[real], want, dtype)
    return got


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_query_a_request(shape: Shape, splits: int) -> None:
    check(shape, torch.float32 if splits > 1 else torch.float16, CONTEXTS, splits=splits)


@pytest.mark.parametrize("window", [1, 6, 70, 1000])
def test_a_sliding_window(window: int) -> None:
    check(SHAPES[0], torch.float32, CONTEXTS, window, splits=2)
    check(SHAPES[1], torch.float32, [9, 600], window, splits=3)


@pytest.mark.parametrize("queries", [2, 5])
def test_several_queries_see_up_to_their_own_place(queries: int) -> None:
    contexts = [queries, 7, 0, 64 + queries, 300]
    for window in (None, 4):
        check(SHAPES[0], torch.float32, contexts, window, queries, splits=3)
        check((4, 1, 16, 16), torch.float16, contexts, window, queries)


@pytest.mark.parametrize("ticket", [True, False], ids=["one launch", "two launches"])
def test_every_number_of_pieces(ticket: bool) -> None:
    config = decode.Config(block=16, least=16, ticket=ticket)
    for splits in (2, 7):
        for contexts in ([1, 15, 17, 0, 33], [100, 16 * splits + 1]):
            check((2, 1, 16, 4), torch.float32, contexts, splits=splits, config=config)


def test_pieces_that_some_rows_do_not_see() -> None:
    config = decode.Config(block=16, least=16)
    check((2, 1, 16, 16), torch.float32, [5, 17, 18, 33], None, 5, splits=4, config=config)
    check((2, 1, 16, 16), torch.float32, [33, 50], 2, 5, splits=4, config=config)


def test_deterministic_rows_do_not_depend_on_batch_or_splits() -> None:
    shape, contexts = (2, 1, 16, 16), [700, 3, 300]
    q, k, v, batch = padded(contexts, 0, shape, torch.float32)
    both = check(shape, torch.float32, contexts, splits=1, deterministic=True)
    for splits in (2, 40):
        assert torch.equal(run(q, k, v, batch, 0.25, None, splits=splits, deterministic=True), both)
    for r, context in enumerate(contexts):
        alone = m.Batch(batch.positions, batch.slots, batch.block_tables[r : r + 1], 16, [1],
                        [context])
        got = run(q[r : r + 1], k, v, alone, 0.25, None, splits=3, deterministic=True)
        assert torch.equal(got, both[r : r + 1])


def test_queries_keys_and_results_may_be_views() -> None:
    q, k, v, batch = padded([40, 3], 0, (4, 2, 16, 4), torch.float32)
    wide, cache = torch.cat((q, q), 1)[:, :4], torch.stack((k, v), 1)
    want = exact(q, k, v, batch, 0.25, None)
    close(run(wide, cache[:, 0], cache[:, 1], batch, 0.25, None, splits=2), want, torch.float32)


def test_what_it_refuses() -> None:
    q, k, v, batch = padded([5], 0, (4, 2, 16, 4), torch.float32)
    contexts = torch.tensor([5], dtype=torch.int32)
    with pytest.raises(ParameterError, match="powers of two"):
        decode.attention(q, k, v, batch.block_tables, contexts, 6, 1.0)
    with pytest.raises(ParameterError, match="2 queries"):
        decode.attention(q, k, v, batch.block_tables, contexts, 4, 1.0, queries=2)
    with pytest.raises(ParameterError, match="up to 256"):
        decode.attention(torch.zeros(1, 4, 300), torch.zeros(8, 2, 300), torch.zeros(8, 2, 300),
                         batch.block_tables, contexts, 4, 1.0)


def test_the_number_of_splits_fits_the_work() -> None:
    assert decode.splits_for(1, 8, 100, "cpu") == 1
    assert 1 <= decode.splits_for(256, 8, 40_960, "cpu") <= 64
    few, many = decode.splits_for(1, 2, 65_536, "cpu"), decode.splits_for(64, 2, 1024, "cpu")
    assert few >= many >= 1
