"""Smaller models: what is left computes what it should, and is smaller."""

from __future__ import annotations

import pytest
import torch

from infero.compress import pruning, structured
from infero.errors import ConfigError
from infero.llm import LLM
from infero.model import ModelConfig, random_model
from infero.quant import calibration
from infero.sampling import SamplingParams

CONFIG = ModelConfig("llama", 48, 24, 40, 4, 6, 3, 8, 128)


@pytest.fixture
def model():  # type: ignore[no-untyped-def]
    return random_model(CONFIG, seed=2)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 48, (4, 32), generator=torch.Generator().manual_seed(0))


def through(model, ids):  # type: ignore[no-untyped-def]
    hidden = calibration.embed(model, ids)
    for index in range(model.config.num_layers):
        hidden = calibration.advance(model, index, hidden)
    return hidden


def test_block_influence() -> None:
    x = torch.randn(5, 8)
    assert structured.block_influence(x, 3 * x) == pytest.approx(0, abs=1e-6)
    assert structured.block_influence(x, -x) == pytest.approx(2)
    a, b = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    assert structured.block_influence(a, b) == pytest.approx(0.5)


def test_an_idle_layer_is_found_and_dropping_it_changes_nothing(model, ids) -> None:  # type: ignore[no-untyped-def]
    idle = model.layers[2]
    idle.o, idle.down = torch.zeros_like(idle.o), torch.zeros_like(idle.down)
    importance = structured.layer_importance(model, ids)
    assert min(range(4), key=importance.__getitem__) == 2
    smaller = structured.drop_layers(model, 1, importance)
    assert smaller.config.num_layers == 3
    torch.testing.assert_close(through(smaller, ids), through(model, ids))


def test_idle_neurons_and_groups_are_the_ones_that_go(model, ids) -> None:  # type: ignore[no-untyped-def]
    for layer in model.layers:
        layer.down[:, ::2] = 0  # half of the neurons do nothing
        layer.o[:, 16:32] = 0  # nor does the second KV group: query heads 2 and 3
    smaller = structured.narrow(model, ids, intermediate=20, kv_heads=2)
    c = smaller.config
    assert (c.num_heads, c.num_kv_heads, c.intermediate_size) == (4, 2, 20)
    assert smaller.layers[0].qkv.shape == ((4 + 2 * 2) * 8, 24)
    assert smaller.layers[0].down.shape == (24, 20)
    torch.testing.assert_close(through(smaller, ids), through(model, ids), rtol=1e-3, atol=1e-3)
    assert smaller.parameter_bytes() < model.parameter_bytes()
    assert model.config == CONFIG and model.layers[0].qkv.shape == ((6 + 2 * 3) * 8, 24)


def test_head_importance_is_what_a_closed_gate_takes_away(model, ids) -> None:  # type: ignore[no-untyped-def]
    z = torch.randn(200, 48)
    o = model.layers[0].o
    got = structured.head_importance(CONFIG, o, z.T @ z / 200)
    for h in range(6):
        part = z[:, 8 * h : 8 * h + 8] @ o[:, 8 * h : 8 * h + 8].T
        assert float(got[h]) == pytest.approx(float(part.square().sum(1).mean()), rel=1e-4)


def test_refit_is_least_squares() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(300, 10, generator=g) @ torch.randn(10, 10, generator=g)
    weight, kept = torch.randn(4, 10, generator=g), torch.tensor([0, 2, 3, 7, 9])
    got = structured.refit(weight, x.T @ x / 300, kept, damping=0.0)
    want = torch.linalg.lstsq(x[:, kept], x @ weight.T).solution.T
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_refitting_helps(model, ids) -> None:  # type: ignore[no-untyped-def]
    want = through(model, ids)
    errors = [float((through(structured.narrow(model, ids, intermediate=28, refitted=r), ids)
                     - want).norm()) for r in (True, False)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("biased", [False, True])
def test_the_engine_runs_smaller_models(biased: bool, ids: torch.Tensor) -> None:
    config = ModelConfig("qwen2", 48, 24, 40, 3, 4, 2, 8, 128, qkv_bias=biased, mlp_bias=biased,
                         sliding_window=8, sliding_layers=(0, 2))
    model = random_model(config, seed=5)
    smaller = structured.keep_layers(structured.narrow(model, ids, intermediate=24, kv_heads=1),
                                     [1, 2])
    assert smaller.config.sliding_layers == (1,)
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    got = LLM(smaller, kv_memory_bytes=1 << 20).generate([1, 2, 3], params)[0].tokens
    assert got == LLM(smaller, use_cache=False).generate([1, 2, 3], params)[0].tokens


@pytest.mark.parametrize("method", pruning.METHODS)
@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_prune_a_model(method: str, pattern: tuple[int, int] | None, model, ids) -> None:  # type: ignore[no-untyped-def]
    before = [layer.down.clone() for layer in model.layers]
    seen: list[int] = []
    pruned = pruning.prune(model, method, 0.5, pattern, ids, seen.append)
    assert pruning.sparsity_of(pruned) == pytest.approx(0.5, abs=0.01)
    assert seen == [0, 1, 2, 3]
    assert all(torch.equal(a, layer.down) for a, layer in zip(before, model.layers, strict=True))


def test_refusals(model, ids) -> None:  # type: ignore[no-untyped-def]
    for call, words in [
        (lambda: structured.keep_layers(model, []), "at least one"),
        (lambda: structured.keep_layers(model, [4]), "0 to 3"),
        (lambda: structured.drop_layers(model, 4, [0.0] * 4), "at least one"),
        (lambda: structured.narrow(model, ids, intermediate=41), "41 neurons"),
        (lambda: structured.narrow(model, ids, kv_heads=4), "4 KV heads"),
        (lambda: pruning.prune(model, "optimal"), "no method 'optimal'"),
        (lambda: pruning.prune(model, "wanda"), "give ids"),
    ]:
        with pytest.raises(ConfigError, match=words):
            call()
