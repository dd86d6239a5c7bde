"""AWQ's search for factors and ranges, on matrices where the answer is known."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from infero import model as m
from infero.quant import affine, awq, calibration, fold
from infero.quant.codes import Codes
from tests.conftest import tiny_config


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(out: int, inputs: int, seed: int, spread: float = 1.5) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, inputs whose channels have very different sizes, and those sizes."""
    g = generator(seed)
    sizes = (spread * torch.randn(inputs, generator=g)).exp()
    rows = torch.randn(120, inputs, generator=g) * sizes
    return torch.randn(out, inputs, generator=g), rows, rows.abs().mean(0)


def loss(weight: Tensor, rounded: Tensor, rows: Tensor) -> float:
    return float((rows @ (rounded - weight).t()).square().sum())


def scaled(weight: Tensor, factors: Tensor, bits: int, group: int | None,
           symmetric: bool) -> Tensor:
    return affine.rtn(weight * factors, bits, group, symmetric).dequantize() / factors


SETTINGS = [(4, 32, True), (3, 24, False), (4, None, True), (3, None, True), (2, 100, False)]


@pytest.mark.parametrize(("bits", "group", "symmetric"), SETTINGS)
def test_the_factors_are_the_best_of_the_grid(bits: int, group: int | None,
                                              symmetric: bool) -> None:
    for seed in range(3):
        weight, rows, mean_abs = case(10, 70, seed)
        got = awq.search(weight, rows, mean_abs, bits, group, symmetric, grid=8)
        losses = []
        for i in range(8):
            power = mean_abs.double() ** (i / 8)
            factors = (power / (power.max() * power.min()).sqrt()).float()
            losses.append(loss(weight, scaled(weight, factors, bits, group, symmetric), rows))
        found = loss(weight, scaled(weight, got, bits, group, symmetric), rows)
        assert found == pytest.approx(min(losses), rel=1e-3)
        assert float(got.max() * got.min()) == pytest.approx(1.0, rel=1e-4)
        assert got.shape == mean_abs.shape and bool((got > 0).all())


def test_a_channel_that_is_never_used_gets_a_finite_factor() -> None:
    weight, rows, mean_abs = case(6, 32, 1)
    rows[:, 3], mean_abs[3] = 0, 0
    got = awq.search(weight, rows, mean_abs, 3, 16)
    assert bool(got.isfinite().all() & (got > 0).all())
    assert torch.equal(awq.search(weight, rows * 0, mean_abs * 0, 4, 16), torch.ones(32))


def test_equal_inputs_need_no_factors() -> None:
    weight, rows, _ = case(6, 32, 2, spread=0.0)
    torch.testing.assert_close(awq.search(weight, rows, torch.full((32,), 0.7), 4, 16),
                               torch.ones(32))


@pytest.mark.parametrize(("bits", "group", "symmetric"), SETTINGS)
def test_clipping_helps_every_group_of_every_row(bits: int, group: int | None, symmetric: bool,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    weight, rows, _ = case(9, 70, 4)
    width = group or 70
    got = awq.clip(weight, rows, bits, group, symmetric)
    assert got.shape == weight.shape and bool((got.abs() <= weight.abs()).all())
    before = affine.rtn(weight, bits, group, symmetric).dequantize() - weight
    after = affine.rtn(got, bits, group, symmetric).dequantize() - weight
    gain = 0
    for first in range(0, 70, width):
        x, part = rows[:, first : first + width], slice(first, first + width)
        old = (x @ before[:, part].t()).square().sum(0)
        new = (x @ after[:, part].t()).square().sum(0)
        assert bool((new <= old * 1.0001 + 1e-4).all())
        gain += int((new < 0.95 * old).sum())
    assert gain > 0
    assert awq.clip(weight.bfloat16(), rows, bits, group, symmetric).dtype == torch.bfloat16
    monkeypatch.setattr(awq, "ROWS", 4)
    torch.testing.assert_close(awq.clip(weight, rows, bits, group, symmetric), got)


# ---------------------------------------------------------------- a layer


def uneven(model: m.Model, seed: int = 0) -> m.Model:
    """Channels of very different size before every matrix, as real models have."""
    g = generator(seed)
    for layer in model.layers:
        for name in fold.MATRICES:
            size = (1.2 * torch.randn(getattr(layer, name).shape[1], generator=g)).exp()
            fold.scale_inputs(model.config, layer, name,
                              fold.free_factors(model.config, name, size))
    return model


def test_the_root_of_a_hessian_judges_as_all_inputs_do() -> None:
    _, rows, _ = case(6, 32, 3)
    stats = calibration.stats_of(rows.repeat(4, 1))
    change = 0.1 * torch.randn(6, 32, generator=generator(0))
    want = (stats.hessian @ change.t() * change.t()).sum()
    got = (awq.judges(stats) @ change.t()).square().sum()
    assert float(got) == pytest.approx(float(want), rel=1e-3)
    stats.hessian = torch.zeros(32, 32)
    assert float(awq.judges(stats).abs().max()) < 1e-2
    stats.hessian = -torch.eye(32)
    assert awq.judges(stats) is stats.rows
    stats.hessian = None
    assert awq.judges(stats) is stats.rows


@pytest.mark.parametrize(("config", "hessian"),
                         [({}, False), ({"qkv_bias": True, "mlp_bias": True}, True),
                          ({"num_heads": 2, "num_kv_heads": 2, "head_dim": 24}, True)])
def test_a_layer_computes_what_it_did_and_rounds_better(config: dict, hessian: bool) -> None:
    model = uneven(m.random_model(tiny_config(**config), seed=1))
    ids = torch.randint(0, 211, (4, 40), generator=generator(3))
    hidden = calibration.embed(model, ids)
    want = calibration.advance(model, 0, hidden)
    stats = calibration.layer_stats(model, 0, hidden, hessian=hessian)
    plain, scaled_only, whole = (copy.deepcopy(model) for _ in range(3))
    kept = {name: t.clone() for name, t in vars(scaled_only.layers[0]).items() if t is not None}
    tensors = dict(vars(scaled_only.layers[0]))
    factors = awq.apply(model.config, scaled_only.layers[0], stats, 3, 16, clipping=False)
    assert set(factors) == set(fold.MATRICES)
    for name, t in kept.items():
        assert torch.equal(tensors[name], t)  # replaced, not written into
    torch.testing.assert_close(calibration.advance(scaled_only, 0, hidden), want,
                               atol=1e-3, rtol=1e-3)
    awq.apply(model.config, whole.layers[0], stats, 3, 16)
    errors = []
    for one in (plain, scaled_only, whole):
        for name in fold.MATRICES:
            rounded: Codes = affine.rtn(getattr(one.layers[0], name), 3, 16)
            setattr(one.layers[0], name, rounded.dequantize())
        errors.append(float((calibration.advance(one, 0, hidden) - want).square().mean()))
    assert errors[1] < errors[0] and errors[2] < errors[0]
