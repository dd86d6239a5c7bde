"""Chapter 4's functions on a GPU: the whole numbers, codes and sums that they give on the CPU."""

from __future__ import annotations

import pytest
import torch

from infero.quant import affine, floats, int8, outliers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
DEVICE = "cuda"


@pytest.mark.parametrize("to", [floats.to_e4m3, floats.to_e5m2])
def test_codes_of_every_bfloat16(to):
    every = torch.arange(-2 ** 15, 2 ** 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    assert torch.equal(to(every.to(DEVICE)).cpu(), to(every))
    bits = torch.randint(-2 ** 31, 2 ** 31, (100_000,), generator=torch.Generator().manual_seed(0))
    x = bits.to(torch.int32).view(torch.float32)
    x = x[~x.isnan()]
    assert torch.equal(to(x.to(DEVICE)).cpu(), to(x))


def test_codes_are_the_casts_of_torch():
    every = torch.arange(-2 ** 15, 2 ** 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = every[every.float().abs() <= 448].to(DEVICE)
    assert torch.equal(floats.to_e4m3(x), x.to(torch.float8_e4m3fn).view(torch.uint8))
    x = every[every.float().abs() < 57344].to(DEVICE)
    assert torch.equal(floats.to_e5m2(x), x.to(torch.float8_e5m2).view(torch.uint8))


@pytest.mark.parametrize(("bits", "group", "symmetric"), [(8, None, True), (4, 64, False),
                                                          (3, 48, True)])
@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse"])
def test_rounding_is_that_of_the_cpu(bits, group, symmetric, ranges):
    weight = torch.randn(65, 200, generator=torch.Generator().manual_seed(1))
    here = affine.rtn(weight, bits, group, symmetric, ranges)
    there = affine.rtn(weight.to(DEVICE), bits, group, symmetric, ranges)
    errors = [(codes.dequantize().cpu() - weight).norm() for codes in (here, there)]
    assert torch.allclose(errors[0], errors[1], rtol=1e-3)
    if ranges != "mse":  # where two ranges are nearly as good, either may be chosen
        assert torch.allclose(here.scales, there.scales.cpu(), rtol=1e-6)
        off = (here.values.int() - there.values.cpu().int()).abs()
        assert int(off.max()) <= 1 and float(off.float().mean()) < 1e-3


@pytest.mark.parametrize(("m", "k", "n"), [(1, 576, 960), (1, 17, 5), (3, 100, 33), (16, 64, 8),
                                           (17, 72, 24), (40, 1536, 576), (0, 8, 8)])
def test_sums_are_exact(m, k, n):
    g = torch.Generator().manual_seed(k)
    a = torch.randint(-127, 128, (m, k), generator=g, dtype=torch.int8)
    b = torch.randint(-127, 128, (n, k), generator=g, dtype=torch.int8)
    got = int8.accumulate(a.to(DEVICE), b.to(DEVICE))
    assert got.dtype == torch.int32
    assert torch.equal(got.cpu(), a.int() @ b.int().t())


def test_tokens_and_outliers():
    g = torch.Generator().manual_seed(2)
    x, weight = torch.randn(20, 96, generator=g), torch.randn(40, 96, generator=g)
    x[:, 7] *= 100
    values, scales = int8.quantize_tokens(x.to(DEVICE))
    there, their_scales = int8.quantize_tokens(x)  # a scale may differ in its last bit
    assert torch.allclose(scales.cpu(), their_scales, rtol=1e-6)
    off = (values.cpu().int() - there.int()).abs()
    assert int(off.max()) <= 1 and float(off.float().mean()) < 1e-3
    columns = outliers.outlier_columns(x.to(DEVICE).abs().amax(0), 20.0)
    rest, kept = outliers.split(weight.to(DEVICE), columns)
    codes = affine.rtn(rest, 8)
    whole = (codes.values.int() - 128).to(torch.int8)
    y = outliers.linear_outliers(x.to(DEVICE), whole, codes.scales[:, 0], kept, columns)
    exact = x.double() @ weight.double().t()
    assert float((y.double().cpu() - exact).norm() / exact.norm()) < 0.02
    largest = [t.to(DEVICE).abs().amax(0) for t in (x, weight)]
    factors = outliers.smoothing_factors(*largest)
    assert factors.is_cuda and bool((factors > 0).all()) and scales.is_cuda
