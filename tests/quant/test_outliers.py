"""Outliers: smoothing changes nothing but the rounding, and splitting keeps what is large."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from infero import model as model_module
from infero.cache import contiguous
from infero.errors import ConfigError
from infero.lab.configurations import tiny_model
from infero.quant import affine, fold, int8, outliers


def test_factors_are_the_formula():
    a, w = torch.tensor([16.0, 1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 3.0, 0.0])
    assert outliers.smoothing_factors(a, w).tolist() == pytest.approx([4, 0.5, 1, 1])
    assert outliers.smoothing_factors(a, w, 1.0).tolist() == pytest.approx([16, 1, 1, 1])
    assert outliers.smoothing_factors(a, w, 0.0).tolist() == pytest.approx([1, 0.25, 1, 1])
    assert outliers.smoothing_factors(a, w, 0.75)[0].item() == pytest.approx(8)


def test_half_makes_the_two_equal():
    g = torch.Generator().manual_seed(0)
    a, w = torch.rand(50, generator=g) * 40 + 0.1, torch.rand(50, generator=g) + 0.01
    factors = outliers.smoothing_factors(a, w)
    assert torch.allclose(a / factors, w * factors, rtol=1e-5)


def logits(model):
    cache = contiguous.allocate(model.config, 1, 9, model.dtype, "cpu")
    ids = torch.tensor([1, 5, 2, 9, 30, 4, 4, 17, 8])
    return model_module.forward(model, ids, contiguous.next_batch(cache, [0], [9]), cache)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_smoothing_leaves_the_model_as_it_was(alpha):
    model = tiny_model()
    layers = [dataclasses.replace(layer) for layer in model.layers]
    smoothed = dataclasses.replace(model, layers=layers)
    g = torch.Generator().manual_seed(3)
    for layer, before in zip(layers, model.layers, strict=True):
        stats = {name: SimpleNamespace(max_abs=torch.rand(getattr(layer, name).shape[1],
                                                          generator=g) * 20)
                 for name in fold.MATRICES}
        factors = outliers.smooth(model.config, layer, stats, alpha)
        assert list(factors) == list(fold.MATRICES)
        assert not torch.equal(layer.qkv, before.qkv)
    assert torch.allclose(logits(smoothed), logits(model), atol=1e-4)


def test_smoothing_refuses_a_share_that_is_none():
    model = tiny_model()
    with pytest.raises(ConfigError, match=r"alpha 1\.5"):
        outliers.smooth(model.config, model.layers[0], {}, 1.5)


def test_columns_and_split():
    largest = torch.tensor([0.1, 6.0, 5.9, 80.0])
    columns = outliers.outlier_columns(largest)
    assert columns.tolist() == [1, 3]
    assert outliers.outlier_columns(largest, 100.0).shape == (0,)
    weight = torch.arange(8.0).view(2, 4)
    rest, kept = outliers.split(weight, columns)
    assert rest.tolist() == [[0, 0, 2, 0], [4, 0, 6, 0]]
    assert kept.tolist() == [[1, 3], [5, 7]]
    assert weight[0, 1] == 1  # not written into


@pytest.mark.parametrize("bias", [True, False])
def test_outliers_apart_are_better(bias):
    g = torch.Generator().manual_seed(1)
    x, weight = torch.randn(20, 96, generator=g), torch.randn(40, 96, generator=g)
    x[:, 7] *= 100
    b = torch.randn(40, generator=g) if bias else None
    exact = x.double() @ weight.double().t() + (0 if b is None else b.double())

    def rounded(w):
        codes = affine.rtn(w, 8)
        return (codes.values.int() - 128).to(torch.int8), codes.scales[:, 0]

    plain = int8.linear_w8a8(x, *rounded(weight), b)
    columns = outliers.outlier_columns(x.abs().amax(0), 20.0)
    rest, kept = outliers.split(weight, columns)
    apart = outliers.linear_outliers(x, *rounded(rest), kept, columns, b)
    factors = outliers.smoothing_factors(x.abs().amax(0), weight.abs().amax(0))
    smoothed = int8.linear_w8a8(x / factors, *rounded(weight * factors), b)

    def error(y):
        return ((y.double() - exact).norm() / exact.norm()).item()

    assert error(apart) < error(smoothed) < error(plain)
    assert error(apart) < 0.02


def test_no_outliers_is_plain_w8a8():
    x, weight = torch.randn(5, 32), torch.randn(6, 32)
    codes = affine.rtn(weight, 8)
    values = (codes.values.int() - 128).to(torch.int8)
    none = torch.zeros(0, dtype=torch.int64)
    got = outliers.linear_outliers(x, values, codes.scales[:, 0], weight[:, none], none)
    assert torch.allclose(got, int8.linear_w8a8(x, values, codes.scales[:, 0]))
