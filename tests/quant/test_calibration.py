"""What a model's matrices see: against a forward pass that is watched from outside."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from infero import model as m
from infero.cache import contiguous
from infero.errors import ConfigError
from infero.kernels import formats
from infero.quant import calibration as c
from tests.conftest import tiny_config


def ids(n: int = 3, length: int = 21, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 211, (n, length), generator=torch.Generator().manual_seed(seed))


def seen_by(model: m.Model, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Inputs of every matrix [tokens, in], by the id of the weight, in one ordinary forward."""
    found: dict[int, torch.Tensor] = {}
    plain = m.linear

    def linear(x, weight, bias=None):  # type: ignore[no-untyped-def]
        found[id(weight)] = x.clone()
        return plain(x, weight, bias)

    n, length = tokens.shape
    cache = contiguous.allocate(model.config, n, length, model.dtype, model.device)
    batch = contiguous.next_batch(cache, [0] * n, [length] * n)
    with monkeypatch.context() as patch:
        patch.setattr(m, "linear", linear)
        m.forward(model, tokens.flatten(), batch, cache)
    return found


@pytest.mark.parametrize("chunk", [1, 42, 4096])
@pytest.mark.parametrize("config", [{}, {"qkv_bias": True, "mlp_bias": True, "o_bias": True},
                                    {"qk_norm": True, "sliding_window": 5}])
def test_statistics_are_those_of_the_forward_pass(config: dict, chunk: int,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    model = m.random_model(tiny_config(**config), seed=3)
    monkeypatch.setattr(c, "CHUNK", chunk)
    tokens = ids()
    want = seen_by(model, tokens, monkeypatch)
    hidden = c.embed(model, tokens)
    for index, layer in enumerate(model.layers):
        before = dict(vars(layer))
        stats = c.layer_stats(model, index, hidden)
        assert vars(model.layers[index]) == before  # nothing was left behind
        for name in c.MATRICES:
            x, s = want[id(getattr(layer, name))], stats[name]
            assert s.tokens == len(x) == 63
            torch.testing.assert_close(s.hessian, x.t() @ x / len(x), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(s.mean_abs, x.abs().mean(0), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(s.max_abs, x.abs().amax(0), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(s.rows, x, atol=1e-4, rtol=1e-4)  # 63: all of them
            torch.testing.assert_close(s.mean_square, x.pow(2).mean(0), atol=1e-4, rtol=1e-4)
        hidden = c.advance(model, index, hidden)
    head = want[id(model.head)]
    torch.testing.assert_close(m.rms_norm(hidden, model.final_norm, 1e-5).flatten(0, 1), head,
                               atol=1e-4, rtol=1e-4)
    alone = c.stats_of(head)
    torch.testing.assert_close(alone.hessian, head.t() @ head / len(head), atol=1e-4, rtol=1e-4)


def test_a_loud_token_does_not_drown_the_others() -> None:
    x = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    plain = c.stats_of(x)
    x[7] *= 1000
    got, median = c.stats_of(x), x.norm(dim=1).median()
    want = x.clone()
    want[7] *= c.LOUD * median / x[7].norm()
    torch.testing.assert_close(got.hessian, want.t() @ want / 200, atol=1e-4, rtol=1e-4)
    plainly = x.t() @ x / 200
    assert float(plainly.trace() / plain.hessian.trace()) > 1000
    assert float(got.hessian.trace() / plain.hessian.trace()) < 4
    torch.testing.assert_close(got.max_abs, x.abs().amax(0))
    silent = c.stats_of(x * 0)
    assert bool((silent.hessian == 0).all())


def test_one_name_at_a_time_and_rows_are_drawn(tiny_model: m.Model,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "ROWS", 7)
    hidden = c.embed(tiny_model, ids())
    together = c.layer_stats(tiny_model, 1, hidden, hessian=False)
    for name in c.MATRICES:
        one = c.layer_stats(tiny_model, 1, hidden, names=(name,))
        assert list(one) == [name]
        torch.testing.assert_close(one[name].rows, together[name].rows)
        torch.testing.assert_close(one[name].max_abs, together[name].max_abs)
        assert together[name].hessian is None and one[name].hessian is not None
        assert len(one[name].rows) == 7
        assert together[name].mean_square.shape == one[name].mean_square.shape
    other = c.layer_stats(tiny_model, 1, hidden, names=("o",), seed=1)
    assert not torch.equal(other["o"].rows, together["o"].rows)


def test_a_layer_already_quantized_is_watched_too(tiny_model: m.Model) -> None:
    hidden = c.embed(tiny_model, ids())
    layer = tiny_model.layers[0]
    rounded = formats.quantize(layer.qkv, "int8")
    tiny_model.layers[0] = dataclasses.replace(layer, qkv=rounded)  # type: ignore[arg-type]
    stats = c.layer_stats(tiny_model, 0, hidden)
    tiny_model.layers[0] = dataclasses.replace(layer, qkv=rounded.dequantize())
    want = c.layer_stats(tiny_model, 0, hidden)
    torch.testing.assert_close(stats["o"].rows, want["o"].rows, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(c.advance(tiny_model, 0, hidden).isfinite().all(),
                               torch.tensor(True))


def test_sequences_do_not_overlap_and_keep_order() -> None:
    got = c.sequences(list(range(1000)), length=30, count=20, seed=4)
    assert got.shape == (20, 30) and got.dtype == torch.int64
    assert torch.equal(got, got[:, :1] + torch.arange(30))
    assert (got[1:, 0] - got[:-1, 0] >= 30).all()
    assert not torch.equal(got, c.sequences(list(range(1000)), length=30, count=20, seed=5))
    assert torch.equal(c.sequences(torch.arange(64), 32, 2)[1], torch.arange(32, 64))


@pytest.mark.parametrize(("length", "count"), [(512, 2), (0, 1), (4, 0)])
def test_a_short_text_is_an_error_that_says_what_to_do(length: int, count: int) -> None:
    with pytest.raises(ConfigError, match="tokens"):
        c.sequences(list(range(1000)), length=length, count=count)
