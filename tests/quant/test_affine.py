"""Scales, zero points and rounding, against float64 and a loop over the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infero.errors import ConfigError
from infero.quant import affine
from infero.quant.codes import bits_a_weight, pack


def by_hand(row: list[float], bits: int, symmetric: bool) -> tuple[list[int], float, int]:
    """One group in plain Python and float64: values, scale, zero point."""
    low, high = min(0.0, *row), max(0.0, *row)
    if symmetric:
        scale, zero = max(-low, high) / (2 ** (bits - 1) - 1) or 1.0, 2 ** (bits - 1)
    else:
        scale = (high - low) / (2 ** bits - 1) or 1.0
        zero = round(-low / scale)
    return [max(0, min(2 ** bits - 1, round(x / scale) + zero)) for x in row], scale, zero


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("shape", "group"), [((3, 8), None), ((5, 70), 32), ((1, 7), 3),
                                              ((4, 64), 64), ((2, 9), 100)])
def test_rtn_is_the_loop(symmetric, bits, shape, group):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits)) + 0.3
    codes = affine.rtn(weight, bits, group, symmetric)
    width = group or shape[1]
    assert codes.scales.shape == codes.zeros.shape == (shape[0], -(-shape[1] // width))
    assert codes.group == min(width, shape[1])
    for r in range(shape[0]):
        for g in range(codes.scales.shape[1]):
            row = weight[r, g * width:(g + 1) * width]
            values, scale, zero = by_hand(row.tolist(), bits, symmetric)
            assert codes.scales[r, g].item() == pytest.approx(scale, rel=1e-6)
            assert codes.zeros[r, g].item() == zero
            got = codes.values[r, g * width:(g + 1) * width]
            off = (got.int() - torch.tensor(values)).abs()
            tie = (row.double() / scale % 1 - 0.5).abs() < 1e-4
            assert int((off * ~tie).max()) == 0
            assert int(off.max()) <= 1


numbers = st.floats(-1e4, 1e4, width=32)


@settings(deadline=None, max_examples=60)
@given(st.lists(numbers, min_size=1, max_size=40), st.integers(2, 8), st.booleans(),
       st.integers(1, 50))
def test_round_trip_is_within_half_a_step(row, bits, symmetric, group):
    weight = torch.tensor([row, [-x for x in row]])
    codes = affine.rtn(weight, bits, group, symmetric)
    each = torch.arange(len(row)) // codes.group
    step = codes.scales[:, each]
    error = (codes.dequantize() - weight).abs()
    # rounding of the zero point may cost the ends another half step
    assert bool((error <= step * (0.5 if symmetric else 1.0) * (1 + 1e-5) + 1e-30).all())
    again = affine.quantize(codes.dequantize(), step, codes.zeros[:, each], bits)
    assert torch.equal(again, codes.values)


@settings(deadline=None, max_examples=60)
@given(st.lists(numbers, min_size=1, max_size=20), st.integers(2, 8), st.booleans())
def test_zero_stays_zero(row, bits, symmetric):
    codes = affine.rtn(torch.tensor([[*row, 0.0]]), bits, None, symmetric)
    assert codes.dequantize()[0, -1].item() == 0.0


def test_halves_go_to_the_even_number():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 300.0, -300.0])
    got = affine.quantize(x, torch.tensor(1.0), torch.tensor(128.0))
    assert got.tolist() == [128, 130, 130, 128, 126, 255, 0]


def test_ends_of_the_range():
    scale, zero = affine.scale_and_zero(torch.tensor([-1.0, 0.5, -4.0, 0.0]),
                                        torch.tensor([3.0, 2.0, -1.0, 0.0]), bits=4)
    assert scale.tolist() == pytest.approx([4 / 15, 2 / 15, 4 / 15, 1.0])
    assert zero.tolist() == [4, 0, 15, 0]
    scale, zero = affine.scale_and_zero(torch.tensor(-1.0), torch.tensor(3.0), 4, symmetric=True)
    assert scale.item() == pytest.approx(3 / 7) and zero.item() == 8


def test_one_step_more_or_less_is_worse():
    """Rounding to nearest is optimal number by number."""
    weight = torch.randn(4, 33, generator=torch.Generator().manual_seed(0))
    codes = affine.rtn(weight, 3, 16, symmetric=False)
    each = torch.arange(33) // 16
    best = (codes.dequantize() - weight).abs()
    for step in (-1, 1):
        moved = (codes.values.int() + step).clamp(0, 7)
        other = affine.dequantize(moved, codes.scales[:, each], codes.zeros[:, each])
        assert bool(((other - weight).abs() >= best - 1e-6).all())


@pytest.mark.parametrize("granularity", ["tensor", "channel", "token", "group", "column"])
def test_fake_quantize_shares_scales_as_named(granularity):
    x = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(1), dtype=torch.bfloat16)
    got = affine.fake_quantize(x, 4, granularity=granularity, group=8)
    assert got.shape == x.shape and got.dtype == x.dtype
    wide = x.float()
    rows = wide.view(12, 20)
    largest = {"tensor": rows.abs().max().expand(12, 20),
               "channel": rows.abs().amax(1, keepdim=True).expand(12, 20),
               "token": rows.abs().amax(1, keepdim=True).expand(12, 20),
               "column": rows.abs().amax(0).expand(12, 20),
               "group": torch.cat([p.abs().amax(1, keepdim=True).expand_as(p)
                                   for p in rows.split(8, 1)], 1)}[granularity]
    scale = largest / 7
    want = ((rows / scale).round() * scale).to(torch.bfloat16).view(x.shape)
    assert torch.equal(got, want)


def test_finer_granularity_is_better():
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    weight = weight * torch.linspace(0.2, 2, 64)[:, None]
    error = [(affine.fake_quantize(weight, 4, granularity=g) - weight).square().mean()
             for g in ("tensor", "channel", "group")]
    assert error[0] > error[1] > error[2]


def test_many_rows_are_rounded_in_parts(monkeypatch):
    weight = torch.randn(50, 12)
    whole = affine.rtn(weight, 8)
    monkeypatch.setattr(affine, "ROWS", 7)
    parts = affine.rtn(weight, 8)
    assert torch.equal(whole.values, parts.values) and torch.equal(whole.scales, parts.scales)


def test_the_kernels_take_it():
    weight = torch.randn(8, 64)
    codes = affine.rtn(weight, 8)
    assert torch.allclose(pack(codes, torch.float32).dequantize(), codes.dequantize())
    codes = affine.rtn(weight, 3, 32, symmetric=False)
    assert torch.allclose(pack(codes, torch.float32).dequantize(), codes.dequantize(), atol=1e-6)
    assert bits_a_weight(4, 64, True) == 4.25


@pytest.mark.parametrize(("weight", "options", "says"), [
    (torch.ones(2, 2), {"bits": 9}, "9 bits"),
    (torch.ones(2, 2), {"bits": 1}, "symmetric"),
    (torch.ones(2, 2), {"bits": 4, "group": 0}, "group of 0"),
    (torch.ones(2), {"bits": 4}, "no matrix"),
    (torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), {"bits": 4}, "row 1, column 1"),
    (torch.tensor([[float("inf"), 2.0]]), {"bits": 8}, "inf at row 0, column 0"),
    (torch.ones(2, 2), {"bits": 4, "ranges": "best"}, "'best'"),
])
def test_bad_input_is_refused(weight, options, says):
    with pytest.raises(ConfigError, match=says):
        affine.rtn(weight, **options)
