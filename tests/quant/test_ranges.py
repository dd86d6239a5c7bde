"""Ranges: how much they keep, and that the best one is the best of a dense search."""

from __future__ import annotations

import pytest
import torch

from infero.errors import ConfigError
from infero.quant import affine, ranges


def rows(seed: int = 0, shape=(5, 200)) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x[:, 3] *= 12
    return x


def error(x, low, high, bits, symmetric):
    scale, zero = affine.scale_and_zero(low, high, bits, symmetric)
    scale, zero = scale[:, None], zero[:, None]
    back = affine.dequantize(affine.quantize(x, scale, zero, bits), scale, zero)
    return (back - x).double().square().sum(1)


def test_minmax_keeps_everything():
    x = rows()
    low, high = ranges.minmax(x)
    assert bool((low[:, None] <= x).all()) and bool((x <= high[:, None]).all())


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98, 1.0])
def test_percentile_cuts_as_many_at_either_end(share):
    x = rows(1)
    low, high = ranges.percentile(x, share)
    cut = round(200 * (1 - share) / 2)
    assert bool(((x < low[:, None]).sum(1) == cut).all())
    assert bool(((x > high[:, None]).sum(1) == cut).all())


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_percentile_refuses(share):
    with pytest.raises(ConfigError, match="share"):
        ranges.percentile(rows(), share)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_is_near_the_best_of_a_dense_search(bits, symmetric):
    x = rows(2)
    low, high = ranges.mse(x, bits, symmetric)
    got = error(x, low, high, bits, symmetric)
    whole_low, whole_high = ranges.minmax(x)
    dense = torch.stack([error(x, whole_low * p, whole_high * p, bits, symmetric)
                         for p in torch.linspace(0.2, 1, 400).tolist()])
    assert bool((got <= error(x, whole_low, whole_high, bits, symmetric)).all())
    assert bool((got <= dense.amin(0) * 1.10).all())
    assert bool((got >= dense.amin(0) * 0.98).all())


def test_rtn_with_each_range():
    x = rows(3)
    errors = {name: (affine.rtn(x, 3, ranges=name).dequantize() - x).square().sum()
              for name in ("minmax", "percentile", "mse")}
    assert errors["mse"] < errors["minmax"]


def test_a_row_of_one_number():
    x = torch.tensor([[0.0], [2.0], [-3.0]])
    for name in ("minmax", "percentile", "mse"):
        assert torch.allclose(affine.rtn(x, 8, ranges=name).dequantize(), x)
