"""Small floats against torch's own types, code by code."""

from __future__ import annotations

import math

import pytest
import torch

from infero.errors import ConfigError
from infero.kernels import formats
from infero.quant import floats

EVERY_BF16 = torch.arange(-2 ** 15, 2 ** 15, dtype=torch.int32).to(torch.int16)
TYPES = {
    "e4m3": (floats.to_e4m3, floats.from_e4m3, torch.float8_e4m3fn),
    "e5m2": (floats.to_e5m2, floats.from_e5m2, torch.float8_e5m2),
}
SATURATES = not bool(torch.tensor(1000.0).to(torch.float8_e4m3fn).float().isnan())


def same_codes(name: str, x: torch.Tensor) -> None:
    to, _, dtype = TYPES[name]
    want = x.to(dtype).view(torch.uint8)
    got = to(x)
    if name == "e4m3" and not SATURATES:  # an older torch makes NaN of what is too large
        big = x.float().abs() > 464
        assert bool((got[big] & 127 == 126).all())
        want = torch.where(big, got, want)
    bad = (want != got).nonzero().tolist()
    assert not bad, (bad[0], x[tuple(bad[0])].item(), want[tuple(bad[0])].item())


@pytest.mark.parametrize("name", TYPES)
def test_every_bfloat16(name):
    same_codes(name, EVERY_BF16.view(torch.bfloat16))


@pytest.mark.parametrize("name", TYPES)
def test_every_float16(name):
    same_codes(name, EVERY_BF16.view(torch.float16))


@pytest.mark.parametrize("name", TYPES)
def test_float32_around_every_tie(name):
    """The middle between each two neighbours, and the float32 numbers just beside it."""
    _, back, _ = TYPES[name]
    numbers = back(torch.arange(127, dtype=torch.uint8)).double()
    numbers = numbers[numbers.isfinite()]
    middle = ((numbers[1:] + numbers[:-1]) / 2).float()
    inf = torch.tensor(float("inf"))
    around = torch.cat((middle, middle.nextafter(inf), middle.nextafter(-inf), numbers.float()))
    same_codes(name, torch.cat((around, -around)))


@pytest.mark.parametrize("name", TYPES)
def test_random_float32(name):
    bits = torch.randint(-2 ** 31, 2 ** 31, (200_000,), generator=torch.Generator().manual_seed(0))
    same_codes(name, bits.to(torch.int32).view(torch.float32))
    same_codes(name, torch.randn(300, 7, generator=torch.Generator().manual_seed(1)) * 30)


@pytest.mark.parametrize("name", TYPES)
def test_every_code_back(name):
    to, back, dtype = TYPES[name]
    codes = torch.arange(256, dtype=torch.uint8)
    want, got = codes.view(dtype).float(), back(codes)
    assert torch.equal(want.isnan(), got.isnan())
    number = ~want.isnan()
    assert torch.equal(want[number].view(torch.int32), got[number].view(torch.int32))
    assert torch.equal(to(got)[number], codes[number])


@pytest.mark.parametrize(("exponent", "mantissa", "dtype"), [
    (5, 10, torch.float16), (8, 7, torch.bfloat16), (5, 2, torch.float8_e5m2)])
def test_round_to_is_the_cast(exponent, mantissa, dtype):
    bits = torch.randint(-2 ** 31, 2 ** 31, (100_000,), generator=torch.Generator().manual_seed(2))
    x = bits.to(torch.int32).view(torch.float32)
    x = x[~x.isnan() & (x.abs() < torch.finfo(dtype).max)]
    assert torch.equal(floats.round_to(x, exponent, mantissa), x.to(dtype).float())


def test_round_to_with_another_largest_number():
    x = torch.tensor([500.0, -1e9, 300.0, 0.0, 1e-9, math.inf])
    assert floats.round_to(x, 4, 3, largest=448).tolist() == [448, -448, 288, 0, 0, 448]
    assert floats.round_to(torch.tensor(math.nan), 4, 3).isnan()
    every = EVERY_BF16.view(torch.bfloat16)
    every = every[~every.isnan()]
    assert torch.equal(floats.round_to(every, 4, 3, largest=448),
                       floats.from_e4m3(floats.to_e4m3(every)))


def test_round_to_picks_the_nearest_of_all_numbers():
    """Against a search through every number of the format, for a 4-bit float (E2M1)."""
    numbers = torch.tensor(floats.magnitudes(2, 1), dtype=torch.float64)
    assert numbers.tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    x = torch.rand(2000, generator=torch.Generator().manual_seed(3)) * 7
    nearest = numbers[(x.double()[:, None] - numbers).abs().argmin(1)].float()
    assert torch.equal(floats.round_to(x, 2, 1, largest=6), nearest)


def test_round_to_refuses():
    with pytest.raises(ConfigError, match="9 exponent"):
        floats.round_to(torch.ones(1), 9, 3)


def test_a_weight_is_the_one_that_the_engine_rounds():
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(5), dtype=torch.bfloat16)
    weight[2] = 0
    got, want = floats.weight_e4m3(weight), formats.quantize(weight, "fp8")
    assert torch.equal(got.values.view(torch.uint8), want.values.view(torch.uint8))
    assert torch.equal(got.scales, want.scales) and got.dtype == want.dtype
    with pytest.raises(ConfigError, match="not finite"):
        floats.weight_e4m3(torch.tensor([[math.nan]]))
