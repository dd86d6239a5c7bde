"""The straight-through gradient, and that a few steps of it make a rounded model better."""

from __future__ import annotations

import copy

import pytest
import torch

from infero import model as m
from infero.quant import affine, calibration, qat
from infero.quant.fold import MATRICES
from tests.conftest import tiny_config


def test_the_gradient_passes_within_the_range_and_nowhere_else() -> None:
    scale, zero = torch.tensor([[0.5], [0.25]]), torch.tensor([[4.0], [1.0]])
    x = torch.tensor([[-2.0, -2.01, 1.5, 1.51, 0.3], [-0.25, -0.26, 1.5, 1.51, 9.0]],
                     requires_grad=True)
    out = qat.fake(x, scale, zero, 3)
    want = affine.dequantize(affine.quantize(x.detach(), scale, zero, 3), scale, zero)
    assert torch.equal(out, want)
    grad = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    out.backward(grad)
    inside = torch.tensor([[1, 0, 1, 0, 1], [1, 0, 1, 0, 0]])
    assert torch.equal(x.grad, grad * inside)


def test_the_backward_pass_is_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "straight_through", lambda grad, *rest: grad * 7)
    x = torch.zeros(3, requires_grad=True)
    qat.fake(x, torch.ones(1), torch.zeros(1), 4).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 7.0))


@pytest.mark.parametrize(("group", "symmetric"), [(16, True), (None, False)])
def test_a_trained_layer_is_nearer_than_a_rounded_one(group: int | None, symmetric: bool) -> None:
    model = m.random_model(tiny_config(qkv_bias=True), seed=2)
    before = copy.deepcopy(vars(model.layers[1]))
    ids = torch.randint(0, 211, (6, 40), generator=torch.Generator().manual_seed(1))
    hidden = calibration.advance(model, 0, calibration.embed(model, ids))
    target = calibration.advance(model, 1, hidden)
    found = qat.train_layer(model, 1, hidden, bits=3, group=group, symmetric=symmetric, steps=30)
    again = qat.train_layer(model, 1, hidden, target, bits=3, group=group, symmetric=symmetric,
                            steps=30)
    assert torch.is_grad_enabled()
    errors = []
    for trained in (True, False):
        changed = copy.deepcopy(model)
        for name in MATRICES:
            codes = found[name]
            assert torch.equal(codes.values, again[name].values)
            assert int(codes.values.max()) < 8 and bool((codes.scales > 0).all())
            assert not codes.scales.requires_grad and codes.symmetric == symmetric
            assert torch.equal(getattr(model.layers[1], name), before[name])
            if not trained:
                codes = affine.rtn(before[name], 3, group, symmetric, "mse")
            setattr(changed.layers[1], name, codes.dequantize())
        errors.append(float((calibration.advance(changed, 1, hidden) - target).square().mean()))
    assert errors[0] < 0.8 * errors[1]


def test_a_short_run_brings_a_model_nearer(tiny_model: m.Model) -> None:
    ids = torch.randint(0, 211, (6, 40), generator=torch.Generator().manual_seed(1))
    seen: list[int] = []
    got = qat.short_run(tiny_model, ids, 3, 16, steps=20,
                        progress=lambda done, _: seen.append(done))
    assert seen == [1, 2, 3]
    rounded = copy.deepcopy(tiny_model)
    for layer in rounded.layers:
        for name in MATRICES:
            setattr(layer, name, affine.rtn(getattr(layer, name), 3, 16, True, "mse").dequantize())
    outs = []
    for model in (tiny_model, got, rounded):
        hidden = calibration.embed(model, ids)
        for index in range(3):
            hidden = calibration.advance(model, index, hidden)
        outs.append(hidden)
    assert float((outs[1] - outs[0]).norm()) < 0.9 * float((outs[2] - outs[0]).norm())
    for layer in got.layers:
        for name in MATRICES:
            part = getattr(layer, name)[:, :16]
            assert all(len(row.unique()) <= 8 for row in part)
