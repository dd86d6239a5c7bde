"""Multi-head latent attention: both forms, causality, the latent cache and what it saves."""

from __future__ import annotations

import pytest
import torch

from infero import mla

SMALL = mla.MLAConfig(layers=2, hidden=24, heads=3, dim=5, rope_dim=4, v_dim=7, rank=9)


def inputs(config: mla.MLAConfig, queries: int, context: int, seed: int = 0,
           dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    c = config
    shapes = [(queries, c.heads, c.dim), (queries, c.heads, c.rope_dim), (context, c.rank),
              (context, c.rope_dim), (c.heads, c.dim, c.rank), (c.heads, c.v_dim, c.rank)]
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize(("queries", "context"), [(1, 1), (1, 17), (4, 4), (5, 12)])
@pytest.mark.parametrize("seed", range(3))
def test_absorbed_equals_expanded_in_float64(queries: int, context: int, seed: int) -> None:
    given = inputs(SMALL, queries, context, seed)
    absorbed = mla.absorbed_attention(*given, SMALL.scale)
    expanded = mla.expanded_attention(*given, SMALL.scale)
    assert absorbed.shape == (queries, SMALL.heads, SMALL.v_dim)
    assert torch.allclose(absorbed, expanded, rtol=0, atol=1e-13)


def test_expanded_is_multi_head_attention() -> None:
    """Head by head, with every key and value written out and the mask counted by hand."""
    q, q_rope, latent, k_rope, w_uk, w_uv = inputs(SMALL, 3, 8)
    got = mla.expanded_attention(q, q_rope, latent, k_rope, w_uk, w_uv, 0.3)
    for h in range(SMALL.heads):
        k = torch.cat((latent @ w_uk[h].T, k_rope), dim=-1)
        for n in range(3):
            seen = 8 - 3 + n + 1
            weights = (k[:seen] @ torch.cat((q[n, h], q_rope[n, h])) * 0.3).softmax(-1)
            assert torch.allclose(got[n, h], weights @ (latent[:seen] @ w_uv[h].T))


def test_low_precision_stays_close() -> None:
    wide = inputs(SMALL, 2, 9)
    narrow = [t.bfloat16() for t in wide]
    got = mla.absorbed_attention(*narrow, SMALL.scale)
    assert got.dtype == torch.bfloat16
    want = mla.expanded_attention(*(t.double() for t in narrow), SMALL.scale)
    assert torch.allclose(got.double(), want, atol=0.1)


@pytest.mark.parametrize("absorbed", [True, False])
def test_the_latent_cache_changes_nothing(absorbed: bool) -> None:
    """Token by token over the cache gives the logits of one pass over everything."""
    model = mla.random_model(SMALL, seed=3)
    tokens = [5, 17, 3, 40, 8, 8, 21]
    cache = mla.allocate(model, len(tokens))
    for at, token in enumerate(tokens):
        got = mla.step(model, cache, [token], at, absorbed)
        fresh = mla.allocate(model, at + 1)
        want = mla.step(model, fresh, tokens[: at + 1], 0, absorbed=False)
        assert torch.allclose(got, want, atol=1e-12)


def test_both_forms_decode_the_same_tokens() -> None:
    model = mla.random_model(SMALL, seed=4)
    want = mla.greedy(model, [1, 2, 3], 12, absorbed=False)
    assert len(want) == 12
    assert mla.greedy(model, [1, 2, 3], 12, absorbed=True) == want


def test_bytes() -> None:
    cache = mla.allocate(mla.random_model(SMALL, dtype=torch.float32), 10)
    assert cache.bytes == 10 * SMALL.bytes_per_token(4)
    v3 = mla.DEEPSEEK_V3
    assert v3.bytes_per_token() == 576 * 61 * 2 == 70_272
    assert v3.expanded_bytes_per_token() / v3.bytes_per_token() == pytest.approx(71.1, abs=0.1)


def test_flops_of_a_cached_token() -> None:
    v3 = mla.DEEPSEEK_V3
    assert v3.flops_per_cached_token(absorbed=False) == 2 * 128 * (192 + 128)
    assert v3.flops_per_cached_token(absorbed=True) == 2 * 128 * (576 + 512)
    per_layer = v3.bytes_per_token() / v3.layers
    assert v3.flops_per_cached_token(absorbed=True) / per_layer == pytest.approx(241.8, abs=0.1)
