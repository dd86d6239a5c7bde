"""Calibration, GPTQ, AWQ and QAT give on a GPU what they give on a CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from infero import model as m
from infero.quant import affine, awq, calibration, gptq, qat, sensitivity
from infero.quant.fold import MATRICES
from tests.conftest import tiny_config

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SHAPE = tiny_config(hidden_size=64, head_dim=16, num_heads=6, num_kv_heads=2,
                    intermediate_size=160)


def moved(model: m.Model, device: str) -> m.Model:
    """A copy of the model on a device."""
    out = copy.deepcopy(model)
    for name, value in vars(out).items():
        if isinstance(value, torch.Tensor):
            setattr(out, name, value.to(device))
    for layer in out.layers:
        for name, value in vars(layer).items():
            if isinstance(value, torch.Tensor):
                setattr(layer, name, value.to(device))
    return out


@pytest.fixture(scope="module")
def models() -> tuple[m.Model, m.Model]:
    model = m.random_model(SHAPE, seed=1)
    return model, moved(model, "cuda")


@pytest.mark.parametrize("length", [32, 37])
def test_statistics(models: tuple[m.Model, m.Model], length: int) -> None:
    ids = torch.randint(0, 211, (4, length), generator=torch.Generator().manual_seed(0))
    both = [calibration.advance(one, 0, calibration.embed(one, ids)) for one in models]
    torch.testing.assert_close(both[1].cpu(), both[0], atol=1e-3, rtol=1e-3)
    host, device = (calibration.layer_stats(one, 1, hidden)
                    for one, hidden in zip(models, both, strict=True))
    for name in MATRICES:
        for field in ("hessian", "mean_abs", "max_abs", "rows"):
            torch.testing.assert_close(getattr(device[name], field).cpu(),
                                       getattr(host[name], field), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize(("bits", "group", "symmetric"), [(4, 64, True), (3, None, True),
                                                          (3, 96, False)])
def test_gptq(bits: int, group: int | None, symmetric: bool, act_order: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 192, generator=g) @ torch.randn(192, 192, generator=g) / 14
    weight, hessian = torch.randn(300, 192, generator=g), x.t() @ x / 2000
    errors = []
    for device in ("cpu", "cuda"):
        w, h = weight.to(device), hessian.to(device)
        for ranges in ("minmax", "hessian"):
            got = gptq.gptq(w, h, bits, group, symmetric, act_order=act_order,
                            ranges=ranges)  # type: ignore[arg-type]
            assert got.values.device.type == device
            errors.append(gptq.output_error(got.dequantize() - w, h))
        rtn = affine.rtn(w, bits, group, symmetric)
        errors.append(gptq.output_error(rtn.dequantize() - w, h))
    for host, device_error in zip(errors[:3], errors[3:], strict=True):
        assert device_error == pytest.approx(host, rel=0.02)
    assert errors[0] < errors[2] and errors[1] < errors[2]


def test_awq_qat_and_sensitivity(models: tuple[m.Model, m.Model]) -> None:
    ids = torch.randint(0, 211, (4, 32), generator=torch.Generator().manual_seed(0))
    found, costs = [], []
    for one in models:
        hidden = calibration.embed(one, ids)
        target = calibration.advance(one, 0, hidden)
        trained = qat.train_layer(one, 0, hidden, target, bits=3, group=32, steps=8)
        assert all(c.values.device == one.device for c in trained.values())
        stats = calibration.layer_stats(one, 0, hidden)
        found.append(awq.apply(one.config, copy.deepcopy(one.layers[0]), stats, 3, 32))
        costs.append(sensitivity.measure(one, ids, (3, 4), 32))
    for name in MATRICES:
        torch.testing.assert_close(found[1][name].cpu(), found[0][name], atol=0.05, rtol=0.05)
    torch.testing.assert_close(costs[1], costs[0], atol=2e-3, rtol=0.05)
