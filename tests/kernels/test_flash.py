"""FlashAttention against its definition in float64; interpreted here, compiled in tests/gpu."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infero import model as m
from infero.errors import ParameterError
from infero.kernels import flash, flash_tma
from tests.kernels.test_decode import close, padded
from tests.test_kernels import MIXES, exact, scene

Shape = tuple[int, int, int, int]  # heads, KV heads, head dim, block size
SHAPES: list[Shape] = [(6, 2, 64, 16), (2, 2, 6, 1), (3, 1, 80, 4), (2, 1, 16, 128)]
SMALL = flash.Config(block_m=32, block_n=16, warps=4, stages=2, together=2)


def starts(lens: list[int], device: str = "cpu") -> Tensor:
    """[0, lens[0], lens[0] + lens[1], ...], int32."""
    return torch.tensor([0, *lens], device=device).cumsum(0).int()


def check(shape: Shape, dtype: torch.dtype, lens: list[tuple[int, int]], window: int | None = None,
          device: str = "cpu", seed: int = 0, config: flash.Config | None = None,
          dense_config: flash.Config | None = None) -> tuple[Tensor, Tensor]:
    """Compare the paged and the dense form with the definition; outputs are full of NaN before."""
    heads, kv_heads, dim, size = shape
    q, k, v, batch = scene(seed, lens, heads, kv_heads, dim, size, dtype)
    scale = dim**-0.5
    want = exact(q, k, v, batch, scale, window)
    queries, longest = starts(batch.query_lens, device), max(batch.query_lens)
    out = torch.full_like(q, torch.nan, device=device)
    contexts = torch.tensor(batch.context_lens, dtype=torch.int32, device=device)
    there = [t.to(device) for t in (q, k, v)]
    got = flash.attention(*there, queries, contexts, batch.block_tables.int().to(device), size,
                          scale, window, longest_query=longest, out=out, config=config)
    assert got is out
    close(got.cpu(), want, dtype)
    flat = [torch.cat([t[slots] for slots in batch.context_slots]).to(device) for t in (k, v)]
    other = torch.full_like(out, torch.nan)
    flash.dense(there[0], *flat, queries, starts(batch.context_lens, device), scale, window,
                longest_query=longest, out=other, config=dense_config or config)
    close(other.cpu(), want, dtype)
    return got.cpu(), other.cpu()


@pytest.mark.parametrize("mix", ["first token", "late chunk", "verification", "everything"])
def test_ragged_batches(mix: str) -> None:
    check(SHAPES[0], torch.float32, MIXES[mix], config=SMALL)


@pytest.mark.parametrize("window", [1, 6, 40])
def test_a_sliding_window(window: int) -> None:
    check(SHAPES[1], torch.float32, [(40, 70), (1, 30), (9, 9)], window, config=SMALL)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_head_dims_and_blocks(shape: Shape) -> None:
    check(shape, torch.float16, [(33, 50), (1, 19), (16, 16)], config=SMALL)
    check(shape, torch.float32, [(20, 33)], 5, config=SMALL, seed=1)


@pytest.mark.parametrize("copies", ["bulk", "specialised"])
def test_keys_through_the_copy_engine(copies: str) -> None:
    q, k, v, batch = scene(0, [(40, 40), (1, 33), (33, 70)], 4, 2, 64, 16, torch.float16)
    flat = [torch.cat([t[slots] for slots in batch.context_slots]) for t in (k, v)]
    out = torch.full_like(q, torch.nan)
    flash_tma.dense(q, *flat, starts(batch.query_lens), starts(batch.context_lens), 0.125, 40, True,
                    out, flash.Config(32, 32, copies=copies))
    close(out, exact(q, k, v, batch, 0.125, None), torch.float16)


def test_edges_of_the_tiles() -> None:
    for lens in ([(32, 32)], [(31, 47)], [(33, 48)], [(64, 64), (32, 80)]):
        check((2, 1, 16, 16), torch.float32, lens, config=SMALL)


def test_the_default_configurations() -> None:
    for dim, dtype in ((16, torch.float32), (16, torch.float16)):
        check((2, 1, dim, 16), dtype, [(33, 50), (3, 9)])


def test_without_a_causal_mask() -> None:
    q, k, v, batch = scene(0, [(20, 20), (7, 33)], 4, 2, 16, 4, torch.float32)
    flat = [torch.cat([t[slots] for slots in batch.context_slots]) for t in (k, v)]
    got = flash.dense(q, *flat, starts(batch.query_lens), starts(batch.context_lens), 0.25,
                      longest_query=20, causal=False, config=SMALL)
    row = key = 0
    for n, context in zip(batch.query_lens, batch.context_lens, strict=True):
        keys, values = (t[key : key + context].double().repeat_interleave(2, 1) for t in flat)
        probs = torch.einsum("qhd,chd->hqc", q[row : row + n].double(), keys).mul(0.25).softmax(-1)
        close(got[row : row + n], torch.einsum("hqc,chd->qhd", probs, values), torch.float32)
        row, key = row + n, key + context
    with pytest.raises(ParameterError, match="looks back"):
        flash.dense(q, *flat, starts([27]), starts([53]), 1.0, 5, longest_query=27, causal=False)


def test_nothing_of_another_request_is_seen_even_if_it_is_not_a_number() -> None:
    q, k, v, batch = scene(0, [(20, 37), (5, 21)], 4, 2, 16, 16, torch.float32)
    want = exact(q, k, v, batch, 0.25, None)
    mine = torch.cat(batch.context_slots)
    others = torch.ones(len(k), dtype=torch.bool)
    others[mine] = False
    k[others] = torch.nan
    v[others] = torch.inf
    contexts = torch.tensor(batch.context_lens, dtype=torch.int32)
    got = flash.attention(q, k, v, starts(batch.query_lens), contexts, batch.block_tables, 16, 0.25,
                          longest_query=20, config=SMALL)
    close(got, want, torch.float32)


def test_a_rows_bits_do_not_depend_on_the_chunk_or_the_neighbours() -> None:
    q, k, v, batch = scene(3, [(70, 90), (40, 40)], 4, 2, 16, 16, torch.float32)
    contexts = torch.tensor(batch.context_lens, dtype=torch.int32)
    whole = flash.attention(q, k, v, starts([70, 40]), contexts, batch.block_tables, 16, 0.25,
                            longest_query=70, config=SMALL)
    for n in (1, 50):  # the last n tokens of the first request, alone
        got = flash.attention(q[70 - n : 70], k, v, starts([n]), contexts[:1],
                              batch.block_tables[:1], 16, 0.25, longest_query=n, config=SMALL)
        assert torch.equal(got, whole[70 - n : 70])


def test_padded_rows_of_a_captured_batch_are_zero() -> None:
    contexts = [5, 0, 33, 0]
    q, k, v, batch = padded(contexts, 0, (4, 2, 16, 16), torch.float32)
    tables = batch.block_tables.clamp(max=0)  # what is left in a padded row is a valid block
    tables[::2] = batch.block_tables[::2]
    for window in (None, 4):
        out = torch.full_like(q, torch.nan)
        flash.attention(q, k, v, starts([1] * 4), torch.tensor(contexts), tables, 16, 0.25, window,
                        longest_query=1, out=out, config=SMALL)
        assert not out[1::2].any()
        close(out[::2], exact(q[::2], k, v, batch, 0.25, window), torch.float32)


def test_no_tokens() -> None:
    q, k, v, batch = scene(0, [(3, 9)], 4, 2, 16, 16, torch.float32)
    assert flash.attention(q[:0], k, v, starts([0]), torch.tensor([9]), batch.block_tables, 16, 1.0,
                           longest_query=0).shape == (0, 4, 16)


def test_what_it_refuses() -> None:
    q, k, v, batch = scene(0, [(3, 9)], 4, 2, 16, 16, torch.float32)
    with pytest.raises(ParameterError, match="powers of two"):
        flash.attention(q, k, v, starts([3]), torch.tensor([9]), batch.block_tables, 12, 1.0,
                        longest_query=3)


def test_batches_of_the_model_agree_with_its_own_attention() -> None:
    q, k, v, batch = scene(5, MIXES["everything"], 6, 2, 16, 16, torch.float32)
    contexts = torch.tensor(batch.context_lens, dtype=torch.int32)
    got = flash.attention(q, k, v, starts(batch.query_lens), contexts, batch.block_tables, 16, 0.25,
                          7, longest_query=max(batch.query_lens), config=SMALL)
    torch.testing.assert_close(got, m.attend(q, k, v, batch, 0.25, 7), atol=2e-6, rtol=2e-6)
