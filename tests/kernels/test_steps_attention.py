"""The labs' attention, piece by piece and as the engine calls it, against float64 oracles.

On a GPU the kernels are compiled and run at real sizes, else interpreted at small ones.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from infero import model as m
from infero.kernels import language
from infero.kernels.steps import attention

pytestmark = pytest.mark.skipif(not language.available(), reason="no Triton here")
DEVICE = "cpu" if language.INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
NAN = math.nan


def rand(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g).to(dtype).to(DEVICE)


def exact_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention of q [rows, dim] over all of k, v [keys, dim] in float64: (out, lse)."""
    s = q.double() @ k.double().T * scale
    return s.softmax(-1) @ v.double(), s.logsumexp(-1)


# ---------------------------------------------------------------- merge


def test_merge_is_attention_over_both_parts_in_any_order() -> None:
    q, k, v = (rand(n, 8, seed=i) for i, n in enumerate((5, 30, 30)))
    want, want_lse = exact_parts(q, k, v, 2.0)
    cuts = [(0, 7), (7, 8), (8, 21), (21, 30)]
    parts = [tuple(t.float() for t in exact_parts(q, k[a:b], v[a:b], 2.0)) for a, b in cuts]
    left = parts[0]
    for part in parts[1:]:
        left = attention.merge(*left, *part)
    right = parts[-1]
    for part in parts[-2::-1]:
        right = attention.merge(*part, *right)
    for out, lse in (left, right):
        torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=1e-5)


def test_merge_with_nothing() -> None:
    out, nothing = rand(3, 4, seed=0), torch.zeros(3, 4, device=DEVICE)
    lse = torch.tensor([900.0, -900.0, -math.inf], device=DEVICE)
    none = torch.full((3,), -math.inf, device=DEVICE)
    out[2] = 0
    for got, got_lse in (attention.merge(out, lse, nothing, none),
                         attention.merge(nothing, none, out, lse)):
        assert torch.equal(got, out)
        assert torch.equal(got_lse, lse)


# ---------------------------------------------------------------- blockwise


@pytest.mark.parametrize("size", [1, 4, 16, 100])
@pytest.mark.parametrize(("queries", "context"), [(1, 1), (3, 33), (7, 16)])
def test_blockwise(size: int, queries: int, context: int) -> None:
    q, k, v = rand(queries, 6, seed=1), rand(context, 6, seed=2), rand(context, 6, seed=3)
    out, lse = attention.blockwise(20 * q, k, v, 0.7, size)
    want, want_lse = exact_parts(20 * q, k, v, 0.7)
    torch.testing.assert_close(out.double(), want, atol=3e-5, rtol=3e-5)
    torch.testing.assert_close(lse.double(), want_lse, atol=3e-5, rtol=3e-5)


# ---------------------------------------------------------------- flash

SHAPES = [  # queries, context, heads, kv_heads, dim
    (1, 1, 1, 1, 16), (5, 5, 2, 1, 24), (17, 40, 4, 2, 8), (33, 33, 3, 3, 64), (16, 48, 6, 2, 16),
]
LARGE = [(1, 1, 8, 8, 64), (1000, 1000, 32, 8, 128), (257, 1300, 9, 3, 64), (130, 130, 4, 1, 80),
         (77, 500, 2, 2, 256)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("shape", SHAPES if DEVICE == "cpu" else SHAPES + LARGE)
def test_flash(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    queries, context, heads, kv_heads, dim = shape
    q = rand(queries, heads, dim, seed=1, dtype=dtype)
    k, v = (rand(context, kv_heads, dim, seed=s, dtype=dtype) for s in (2, 3))
    got = attention.flash(q, k, v, dim**-0.5)
    want = m.attention(q.double(), k.double(), v.double(), dim**-0.5)
    torch.testing.assert_close(got.double(), want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert torch.equal(got, attention.flash(q, k, v, dim**-0.5)), "the same bits each time"


# ---------------------------------------------------------------- paged decode and combine


def paged(seed: int, contexts: list[int], kv_heads: int, dim: int, size: int,
          dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """k, v, tables and contexts: blocks in random order, NaN in every slot that holds no token."""
    draw = torch.Generator().manual_seed(seed)
    counts = [-(-c // size) for c in contexts]
    order = torch.randperm(sum(counts) + 3, generator=draw).tolist()
    k = torch.full((len(order) * size, kv_heads, dim), NAN, dtype=dtype, device=DEVICE)
    v = k.clone()
    tables = torch.zeros(len(contexts), max(*counts, 1) + 1, dtype=torch.int32)
    for r, (context, count) in enumerate(zip(contexts, counts, strict=True)):
        blocks, order = order[:count], order[count:]
        tables[r, :count] = torch.tensor(blocks)
        slots = [blocks[p // size] * size + p % size for p in range(context)]
        k[slots] = rand(context, kv_heads, dim, seed=seed + r, dtype=dtype)
        v[slots] = rand(context, kv_heads, dim, seed=seed + r + 100, dtype=dtype)
    return k, v, tables.to(DEVICE), torch.tensor(contexts, dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("splits", [1, 3, 8])
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "size"), [(4, 2, 16, 4), (6, 2, 24, 16),
                                                                (3, 3, 8, 1)])
def test_paged_decode(heads: int, kv_heads: int, dim: int, size: int, splits: int,
                      dtype: torch.dtype) -> None:
    contexts = [1, 40, 0, 17, 33] if DEVICE == "cpu" else [1, 4000, 0, 129, 777]
    k, v, tables, lens = paged(5, contexts, kv_heads, dim, size, dtype)
    q = rand(len(contexts), heads, dim, seed=9, dtype=dtype)
    parts = attention.paged_decode(q, k, v, tables, lens, size, dim**-0.5, splits)
    out, lse = attention.combine(*parts)
    assert parts[0].shape == (len(contexts), heads, splits, dim)
    assert not parts[0].isnan().any()
    assert not parts[1].isnan().any()
    for r, context in enumerate(contexts):
        if context == 0:
            assert torch.equal(out[r], torch.zeros_like(out[r]))
            assert (lse[r] == -math.inf).all()
            continue
        slots = [int(tables[r, p // size]) * size + p % size for p in range(context)]
        for h in range(heads):
            kv = h // (heads // kv_heads)
            want, want_lse = exact_parts(q[r, h][None], k[slots, kv], v[slots, kv], dim**-0.5)
            torch.testing.assert_close(out[r, h].double(), want[0], atol=TOLERANCE[dtype],
                                       rtol=TOLERANCE[dtype])
            torch.testing.assert_close(lse[r, h].double(), want_lse[0], atol=TOLERANCE[dtype],
                                       rtol=TOLERANCE[dtype])


def test_a_mean_of_means_is_not_what_combine_gives() -> None:
    parts = torch.tensor([[[[1.0], [3.0]]]], device=DEVICE)
    lse = torch.tensor([[[0.0, math.log(3.0)]]], device=DEVICE)
    out, total = attention.combine(parts, lse)
    assert math.isclose(float(out), 2.5, rel_tol=1e-6)
    assert math.isclose(float(total), math.log(4.0), rel_tol=1e-6)


# ---------------------------------------------------------------- what the engine calls


@pytest.mark.parametrize("lens", [
    [(5, 5), (1, 9), (3, 20)], [(1, 7), (1, 30)], [(1, 1)], [(12, 40)],
], ids=["mixed", "decode", "one", "chunk"])
def test_attend_equals_the_model(lens: list[tuple[int, int]]) -> None:
    heads, kv_heads, dim, size = 4, 2, 8, 4
    k, v, tables, _ = paged(3, [c for _, c in lens], kv_heads, dim, size)
    k, v = k.nan_to_num(7.0), v.nan_to_num(7.0)
    tokens = sum(n for n, _ in lens)
    batch = m.Batch(torch.zeros(tokens), torch.zeros(tokens), tables.long(), size,
                    [n for n, _ in lens], [c for _, c in lens])
    q = rand(tokens, heads, dim, seed=4)
    got = attention.attend(q, k, v, batch, 0.4, None)
    torch.testing.assert_close(got, m.attend(q, k, v, batch, 0.4, None), atol=2e-5, rtol=2e-5)


def test_a_shared_prefix_is_read_once_and_merged() -> None:
    heads, kv_heads, dim, size = 4, 2, 8, 4
    k, v = rand(60, kv_heads, dim, seed=1), rand(60, kv_heads, dim, seed=2)
    tables = torch.tensor([[9, 2, 5, 7], [9, 2, 11, 0], [9, 2, 3, 0]], device=DEVICE)
    batch = m.Batch(torch.zeros(3), torch.zeros(3), tables, size, [1, 1, 1], [14, 10, 9])
    q = rand(3, heads, dim, seed=3)
    assert attention.shared_blocks(batch) == 2
    got = attention.attend(q, k, v, batch, 0.4, None)
    torch.testing.assert_close(got, m.attend(q, k, v, batch, 0.4, None), atol=2e-5, rtol=2e-5)


def test_each_keeps_its_newest_token_for_itself() -> None:
    tables = torch.tensor([[1, 2], [1, 2]], device=DEVICE)
    batch = m.Batch(torch.zeros(2), torch.zeros(2), tables, 4, [1, 1], [8, 8])
    assert attention.shared_blocks(batch) == 1


def test_a_window_goes_to_pytorch() -> None:
    k, v, tables, _ = paged(3, [20], 2, 8, 4)
    k, v = k.nan_to_num(7.0), v.nan_to_num(7.0)
    q = rand(1, 4, 8, seed=4)
    nowhere = torch.zeros(1, device=q.device)
    batch = m.Batch(nowhere, nowhere, tables.long(), 4, [1], [20])
    got = attention.attend(q, k, v, batch, 0.4, 6)
    torch.testing.assert_close(got, m.attend(q, k, v, batch, 0.4, 6), atol=2e-5, rtol=2e-5)
