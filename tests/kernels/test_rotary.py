"""RoPE with its norms and cache writes, interpreted, against float64."""

from __future__ import annotations

import pytest
import torch

from infero import model as m
from infero.errors import ParameterError
from infero.kernels import rotary
from tests.kernels import oracles
from tests.kernels.oracles import close, frequencies, poisoned, randn

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=lambda d: str(d)[6:])


@DTYPES
@pytest.mark.parametrize("tokens,heads,dim", [(1, 1, 2), (5, 3, 16), (4, 12, 64), (3, 2, 80),
                                              (2, 5, 256), (0, 2, 4), (3, 9, 6)])
def test_rotate(tokens: int, heads: int, dim: int, dtype: torch.dtype) -> None:
    x = randn(3, tokens, heads + 1, dim, dtype=dtype)[:, 1:]  # a view, as in the model
    positions = torch.arange(tokens) * 97 + 3
    out = poisoned(tokens, heads, dim, dtype=dtype)
    rotary.rotate(x, positions, frequencies(dim), out=out)
    close(out, oracles.rope(x, positions, frequencies(dim)), 2, 4e-4 if x.dtype.itemsize == 2
          else 2e-6)
    assert torch.equal(out, rotary.rotate(x.contiguous(), positions.int(), frequencies(dim)))


def test_far_positions() -> None:
    x, positions = randn(1, 4, 2, 64), torch.tensor([0, 131_071, 1_000_003, 2**24 - 1])
    got = rotary.rotate(x, positions, frequencies(64))
    close(got, oracles.rope(x, positions, frequencies(64)), 4, 4e-6)
    close(got, m.rope(x, positions, frequencies(64)), 4, 4e-6)


SCENES = [  # tokens, heads, kv_heads, dim, normed
    (1, 1, 1, 2, False), (5, 9, 3, 64, False), (7, 6, 2, 8, True), (3, 16, 8, 128, True),
    (2, 32, 8, 80, False), (4, 4, 4, 96, True), (1, 5, 1, 256, True), (0, 2, 1, 8, False),
    (2, 17, 17, 6, True),
]


@DTYPES
@pytest.mark.parametrize("tokens,heads,kv_heads,dim,normed", SCENES)
def test_rotate_and_write(tokens: int, heads: int, kv_heads: int, dim: int, normed: bool,
                          dtype: torch.dtype) -> None:
    scene(tokens, heads, kv_heads, dim, normed, dtype)


def scene(tokens: int, heads: int, kv_heads: int, dim: int, normed: bool, dtype: torch.dtype,
          device: str = "cpu") -> None:
    """Also used on a GPU. One token in three is padding and has no slot."""
    slots_there = 3 * tokens + 5
    qkv = randn(1, tokens, (heads + 2 * kv_heads) * dim, dtype=dtype, device=device)
    positions = torch.arange(tokens, device=device) * 53 + 1
    slots = torch.randperm(slots_there, generator=torch.Generator().manual_seed(3))[:tokens]
    slots[2::3] = -1
    slots = slots.to(device)
    inv_freq = frequencies(dim).to(device)
    q_norm, k_norm = (1 + 0.3 * randn(s, dim, dtype=dtype, device=device) if normed else None
                      for s in (4, 5))
    k, v = (poisoned(slots_there, kv_heads, dim, dtype=dtype, device=device) for _ in range(2))
    k_want, v_want = k.double(), v.double()
    want = oracles.rotate_and_write(qkv, positions, slots, inv_freq, k_want, v_want, heads,
                                    kv_heads, q_norm, k_norm, 1e-6)
    out = poisoned(tokens, heads, dim, dtype=dtype, device=device)
    rotary.rotate_and_write(qkv, positions, slots, inv_freq, k, v, heads, kv_heads, q_norm, k_norm,
                            1e-6, out=out)
    tolerance = {torch.float32: 4e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    close(out, want, 2, tolerance)
    for got, exact in ((k, k_want), (v, v_want)):
        assert torch.equal(got.isnan(), exact.isnan()), "slots that belong to others were written"
        close(got.nan_to_num(), exact.nan_to_num(), 2, tolerance)
    again = rotary.rotate_and_write(qkv, positions.int(), slots.int(), inv_freq, k, v, heads,
                                    kv_heads, q_norm, k_norm, 1e-6)
    assert torch.equal(again, out)


def test_it_equals_the_order_of_the_block() -> None:
    """model.block: split, norms of q and k, RoPE, cache write."""
    heads, kv_heads, dim = 6, 2, 16
    qkv = randn(1, 4, (heads + 2 * kv_heads) * dim)
    w_q, w_k = randn(2, dim), randn(3, dim)
    positions, slots = torch.arange(4) + 9, torch.tensor([3, 0, 2, 7])
    parts = qkv.view(4, -1, dim).split((heads, kv_heads, kv_heads), 1)
    k_cache, v_cache = torch.zeros(8, kv_heads, dim), torch.zeros(8, kv_heads, dim)
    got = rotary.rotate_and_write(qkv, positions, slots, frequencies(dim), k_cache, v_cache, heads,
                                  kv_heads, w_q, w_k, 1e-6)
    q = m.rope(m.rms_norm(parts[0], w_q, 1e-6), positions, frequencies(dim))
    k = m.rope(m.rms_norm(parts[1], w_k, 1e-6), positions, frequencies(dim))
    torch.testing.assert_close(got, q)
    torch.testing.assert_close(k_cache[slots], k)
    assert torch.equal(v_cache[slots], parts[2])


def test_strided_caches_and_rows() -> None:
    heads, kv_heads, dim = 4, 2, 8
    wide = randn(1, 3, (heads + 2 * kv_heads) * dim + 5)
    both = torch.zeros(6, kv_heads, 2, dim)  # keys and values of a slot side by side
    k_cache, v_cache = both[:, :, 0], both[:, :, 1]
    qkv, slots = wide[:, :-5], torch.tensor([5, 1, 0])
    rotary.rotate_and_write(qkv, torch.arange(3), slots, frequencies(dim), k_cache, v_cache, heads,
                            kv_heads)
    k, v = (torch.zeros(6, kv_heads, dim) for _ in range(2))
    rotary.rotate_and_write(qkv.contiguous(), torch.arange(3), slots, frequencies(dim), k, v,
                            heads, kv_heads)
    assert torch.equal(k_cache, k) and torch.equal(v_cache, v)


def test_one_norm_without_the_other_is_refused() -> None:
    cache = torch.zeros(2, 1, 8)
    with pytest.raises(ParameterError, match="q_norm"):
        rotary.rotate_and_write(torch.zeros(1, 24), torch.zeros(1), torch.zeros(1), frequencies(8),
                                cache, cache, 1, 1, q_norm=torch.ones(8))
