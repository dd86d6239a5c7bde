"""The forward pass against independent float64 oracles, and against itself in other batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from infero import model as m
from infero.cache import contiguous
from infero.errors import ConfigError, PromptError
from tests.conftest import tiny_config


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows,hidden", [(1, 1), (3, 7), (5, 576)])
def test_rms_norm_against_float64(seed: int, rows: int, hidden: int) -> None:
    x, w = randn(seed, rows, hidden) * 3, randn(seed + 9, hidden)
    wide = x.double()
    want = torch.stack([
        row / math.sqrt(sum(float(v) ** 2 for v in row) / hidden + 1e-5) for row in wide
    ]) * w.double()
    torch.testing.assert_close(m.rms_norm(x, w, 1e-5).double(), want, atol=1e-5, rtol=1e-5)


def test_rms_norm_in_bfloat16_takes_statistics_in_float32() -> None:
    x = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    x[0, 0] = 100.0
    want = 100 / math.sqrt((100**2 + 4095) / 4096)
    got = float(m.rms_norm(x, torch.ones(4096, dtype=torch.bfloat16), 0.0)[0, 0])
    assert abs(got - want) / want < 2**-8


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tokens,heads,dim", [(1, 1, 2), (5, 3, 16), (7, 9, 64)])
def test_rope_is_a_complex_rotation(seed: int, tokens: int, heads: int, dim: int) -> None:
    x = randn(seed, tokens, heads, dim)
    positions = torch.randint(0, 5000, (tokens,), generator=torch.Generator().manual_seed(seed))
    inv_freq = 1 / 10_000 ** (torch.arange(0, dim, 2) / dim)
    angles = (positions[:, None].float() * inv_freq).double()  # float32 angles, as documented
    z = torch.complex(x[..., : dim // 2].double(), x[..., dim // 2 :].double())
    z = z * torch.polar(torch.ones_like(angles), angles)[:, None]
    want = torch.cat((z.real, z.imag), -1)
    torch.testing.assert_close(m.rope(x, positions, inv_freq).double(), want, atol=2e-5, rtol=1e-4)


def test_rope_scores_depend_on_distance_only() -> None:
    q, k = randn(0, 1, 1, 16), randn(1, 1, 1, 16)
    inv_freq = m.rope_frequencies(tiny_config(head_dim=16))

    def score(i: int, j: int) -> float:
        a, b = m.rope(q, torch.tensor([i]), inv_freq), m.rope(k, torch.tensor([j]), inv_freq)
        return float((a * b).sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


def attention_oracle(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """One query and head at a time, in float64, straight from the definition."""
    queries, heads, dim = q.shape
    context, kv_heads, _ = k.shape
    q, k, v = q.double(), k.double(), v.double()
    out = torch.zeros(queries, heads, dim, dtype=torch.float64)
    for t in range(queries):
        i = context - queries + t
        low = 0 if window is None else max(0, i - window + 1)
        for h in range(heads):
            g = h // (heads // kv_heads)
            weights = (k[low : i + 1, g] @ q[t, h] * scale).softmax(0)
            out[t, h] = weights @ v[low : i + 1, g]
    return out


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("queries,context,heads,kv_heads,dim",
                         [(1, 1, 1, 1, 4), (1, 13, 9, 3, 8), (5, 5, 4, 4, 6), (4, 11, 6, 1, 10)])
def test_attention_against_float64(seed: int, window: int | None, queries: int, context: int,
                                   heads: int, kv_heads: int, dim: int) -> None:
    q = randn(seed, queries, heads, dim)
    k, v = randn(seed + 1, context, kv_heads, dim), randn(seed + 2, context, kv_heads, dim)
    want = attention_oracle(q, k, v, dim**-0.5, window)
    got = m.attention(q, k, v, dim**-0.5, window)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


def test_attention_takes_non_contiguous_input() -> None:
    qkv = randn(0, 7, 10, 8)
    q, k, v = qkv[:, :6], qkv[:, 6:8], qkv[:, 8:]
    torch.testing.assert_close(
        m.attention(q, k, v, 0.3), m.attention(q.clone(), k.clone(), v.clone(), 0.3)
    )


def test_swiglu() -> None:
    g, u = randn(0, 3, 5), randn(1, 3, 5)
    want = g.double() / (1 + (-g.double()).exp()) * u.double()
    torch.testing.assert_close(m.swiglu(g, u).double(), want, atol=1e-6, rtol=1e-6)


# ------------------------------------------------ one forward pass, cut in every way


def logits_of(model: m.Model, chunks: list[list[int]]) -> Tensor:
    """Logits of every token when the sequence arrives in the given chunks."""
    total = sum(map(len, chunks))
    cache = contiguous.allocate(model.config, 1, total, model.dtype, "cpu")
    rows, start = [], 0
    for chunk in chunks:
        batch = contiguous.next_batch(cache, [start], [len(chunk)])
        rows.append(m.forward(model, torch.tensor(chunk), batch, cache))
        start += len(chunk)
    return torch.cat(rows)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("cuts", [[1] * 13, [5, 8], [12, 1], [3, 1, 1, 8]])
def test_any_chunking_gives_the_same_logits(window: int | None, cuts: list[int]) -> None:
    model = m.random_model(tiny_config(sliding_window=window, qk_norm=True, qkv_bias=True), seed=2)
    ids = [(7 * i + 3) % 211 for i in range(13)]
    whole = logits_of(model, [ids])
    chunks, at = [], 0
    for n in cuts:
        chunks.append(ids[at : at + n])
        at += n
    torch.testing.assert_close(logits_of(model, chunks), whole, atol=1e-4, rtol=1e-4)


def test_a_ragged_batch_equals_its_requests_alone(tiny_model: m.Model) -> None:
    prompts = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 8, 7]]
    cache = contiguous.allocate(tiny_model.config, 3, 16, tiny_model.dtype, "cpu")
    lens = [len(p) for p in prompts]
    batch = contiguous.next_batch(cache, [0, 0, 0], lens)
    got = m.forward(tiny_model, torch.tensor(sum(prompts, [])), batch, cache)
    alone = torch.cat([logits_of(tiny_model, [p]) for p in prompts])
    torch.testing.assert_close(got, alone, atol=1e-4, rtol=1e-4)
    rows = torch.tensor([0, 7, 10])
    torch.testing.assert_close(
        m.forward(tiny_model, torch.tensor(sum(prompts, [])), batch, cache, rows), got[rows],
        atol=1e-4, rtol=1e-4,
    )


def test_long_prompts_go_through_attention_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = m.random_model(tiny_config(max_context=64), seed=3)
    ids = [[i % 211 for i in range(50)]]
    whole = logits_of(model, ids)
    monkeypatch.setattr(m, "QUERY_CHUNK", 7)
    torch.testing.assert_close(logits_of(model, ids), whole, atol=1e-4, rtol=1e-4)


def test_context_slots_follow_the_block_table() -> None:
    tables = torch.tensor([[4, 0, 2]])
    batch = m.Batch(torch.tensor([9]), torch.tensor([9]), tables, 4, [1], [10])
    assert batch.context_slots[0].tolist() == [16, 17, 18, 19, 0, 1, 2, 3, 8, 9]


def test_the_cache_says_when_a_request_outgrows_it() -> None:
    cache = contiguous.allocate(tiny_config(), 2, 8, torch.float32, "cpu")
    assert cache.bytes == 2 * 3 * 16 * 2 * 8 * 4
    with pytest.raises(PromptError, match="9 tokens, but the cache has room for 8"):
        contiguous.next_batch(cache, [0, 6], [8, 3])


# ------------------------------------------------ configuration and prompts


def test_bad_configurations_are_named() -> None:
    with pytest.raises(ConfigError, match="7 query heads cannot share 2 KV heads"):
        tiny_config(num_heads=7)
    with pytest.raises(ConfigError, match="head_dim is 9"):
        tiny_config(head_dim=9)
    with pytest.raises(ConfigError, match="num_layers is 0"):
        tiny_config(num_layers=0)
    with pytest.raises(ConfigError, match="'spiral' is not supported"):
        m.rope_frequencies(tiny_config(rope_scaling=m.RopeScaling("spiral", 2.0)))


def test_models_print_short() -> None:
    model = m.random_model(tiny_config())
    assert len(repr(model)) < 100 and "3 layers" in repr(model)
    assert len(repr(model.layers[0])) < 100


def test_parameter_bytes_counts_a_tied_head_once() -> None:
    tied = m.random_model(tiny_config(tie_embeddings=True))
    untied = m.random_model(tiny_config())
    assert untied.parameter_bytes() - tied.parameter_bytes() == 211 * 48 * 4


def test_sliding_layers_choose_who_has_the_window() -> None:
    config = tiny_config(sliding_window=5, sliding_layers=(1,))
    assert [config.window(i) for i in range(3)] == [None, 5, None]
    assert [tiny_config(sliding_window=5).window(i) for i in range(2)] == [5, 5]
