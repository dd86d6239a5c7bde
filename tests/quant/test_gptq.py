"""GPTQ against a brute-force optimum, against optimal brain quantization, and on awkward inputs."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.quant import affine, codes, gptq


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(out: int, inputs: int, seed: int, tokens: int = 64) -> tuple[Tensor, Tensor]:
    """A weight [out, in] and the Hessian of correlated inputs, in float32."""
    g = generator(seed)
    mix = torch.randn(inputs, inputs, generator=g)
    x = torch.randn(tokens, inputs, generator=g) @ mix + torch.randn(inputs, generator=g)
    return torch.randn(out, inputs, generator=g), x.t() @ x / tokens


def error(weight: Tensor, got: codes.Codes, hessian: Tensor) -> float:
    change = (got.dequantize() - weight).double()
    return float(((change @ hessian.double()) * change).sum())


# ---------------------------------------------------------------- the optimum


def optimum(weight: Tensor, scales: Tensor, zeros: Tensor, hessian: Tensor, bits: int) -> float:
    """The least output error over every way to choose the whole numbers, row by row."""
    total = 0.0
    every = torch.tensor(list(itertools.product(range(2**bits), repeat=weight.shape[1])))
    for row, scale, zero in zip(weight, scales, zeros, strict=True):
        change = ((every - zero) * scale - row).double()
        total += float(((change @ hessian.double()) * change).sum(1).min())
    return total


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("out", "inputs"), [(1, 4), (2, 5), (1, 6)])
def test_between_the_optimum_and_rounding_to_nearest(out: int, inputs: int,
                                                     symmetric: bool) -> None:
    best = mine = nearest = 0.0
    for seed in range(40):
        weight, hessian = case(out, inputs, seed)
        got = gptq.gptq(weight, hessian, 2, None, symmetric, damping=0.0)
        rtn = affine.rtn(weight, 2, None, symmetric)
        assert torch.equal(got.scales, rtn.scales) and torch.equal(got.zeros, rtn.zeros)
        least = optimum(weight, got.scales, got.zeros, hessian, 2)
        mistake = error(weight, got, hessian)
        assert least <= mistake * (1 + 1e-4) + 1e-6
        best, mine, nearest = best + least, mine + mistake, nearest + error(weight, rtn, hessian)
    assert best <= mine < 0.9 * nearest


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("group", [None, 8, 13])
def test_uncorrelated_inputs_leave_rounding_to_nearest(group: int | None, act_order: bool) -> None:
    weight = torch.randn(7, 40, generator=generator(1))
    for hessian in (torch.eye(40), torch.diag(torch.rand(40, generator=generator(2)) + 0.1)):
        got = gptq.gptq(weight, hessian, 3, group, False, act_order=act_order)
        want = affine.rtn(weight, 3, group, False)
        assert torch.equal(got.values, want.values) and got.group == want.group
        assert torch.equal(got.scales, want.scales) and torch.equal(got.zeros, want.zeros)


# ---------------------------------------------------------------- the column update


def brain_surgeon(weight: Tensor, hessian: Tensor, scale: Tensor, zero: Tensor,
                  bits: int) -> tuple[Tensor, Tensor]:
    """Optimal brain quantization in a fixed order: the inverse is formed anew for every column.

    float64 throughout; scale, zero: [out, in]. Returns values and what is left of the weight.
    """
    left, n = weight.double().clone(), weight.shape[1]
    values = torch.empty(weight.shape, dtype=torch.uint8)
    for j in range(n):
        inverse = torch.linalg.inv(hessian[j:, j:].double())
        values[:, j] = affine.quantize(left[:, j], scale[:, j], zero[:, j], bits)
        change = (left[:, j] - (values[:, j] - zero[:, j].double()) * scale[:, j].double())
        left[:, j:] -= change[:, None] / inverse[0, 0] * inverse[0]
    return values, left


@pytest.mark.parametrize(("block", "inputs"), [(1, 9), (4, 9), (128, 9), (5, 37)])
def test_the_blocked_update_is_optimal_brain_quantization(block: int, inputs: int) -> None:
    for seed in range(5):
        weight, hessian = case(6, inputs, seed, tokens=400)
        got = gptq.gptq(weight, hessian, 4, None, damping=0.0, block=block)
        scale, zero = got.scales.expand(-1, inputs), got.zeros.expand(-1, inputs)
        want, _ = brain_surgeon(weight, hessian, scale, zero, 4)
        # float32 may round a tie the other way, which then moves what follows: rows, not columns
        same = (got.values == want).all(1)
        assert same.float().mean() >= 0.8
        assert error(weight, got, hessian) == pytest.approx(
            error(weight, codes.Codes(want, got.scales, got.zeros, 4, inputs), hessian), rel=0.1)


def test_a_column_is_updated_exactly() -> None:
    weight, hessian = case(5, 12, 3, tokens=400)
    weight, hessian = weight.double(), hessian.double()
    factor = gptq.inverse_factor(hessian, 0.0)
    scale = torch.rand(5, 12, generator=generator(0), dtype=torch.float64) * 0.2 + 0.1
    zero = torch.full((5, 12), 8.0, dtype=torch.float64)
    kept = weight.clone()
    values, errors = gptq.quantize_block(weight[:, :1], factor[:1, :1], scale[:, :1], zero[:, :1],
                                         4)
    assert torch.equal(weight, kept)
    moved = weight[:, 1:] - errors @ factor[:1, 1:]
    change = affine.dequantize(values, scale[:, :1], zero[:, :1]) - weight[:, :1]
    # closed form: minimise over the rest r:  [c r] H [c r]^T  =>  r = -c H[0, 1:] H[1:, 1:]^-1
    want = weight[:, 1:] - change @ hessian[:1, 1:] @ torch.linalg.inv(hessian[1:, 1:])
    torch.testing.assert_close(moved, want, atol=1e-10, rtol=1e-10)
    total = torch.cat((change, moved - weight[:, 1:]), dim=1)
    cost = ((total @ hessian) * total).sum(1)
    torch.testing.assert_close(errors[:, 0] ** 2, cost, atol=1e-10, rtol=1e-10)


def test_errors_add_up_to_the_output_error() -> None:
    weight, hessian = case(4, 24, 5, tokens=400)
    factor = gptq.inverse_factor(hessian, 0.0)
    scale, zero = torch.full((4, 24), 0.3), torch.full((4, 24), 8.0)
    values, errors = gptq.quantize_block(weight, factor, scale, zero, 4)
    change = affine.dequantize(values, scale, zero) - weight
    assert float(errors.square().sum()) == pytest.approx(gptq.output_error(change, hessian),
                                                         rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_factor_is_that_of_the_damped_inverse(dtype: torch.dtype) -> None:
    _, hessian = case(1, 30, 7, tokens=400)
    hessian = hessian.to(dtype)
    hessian[4] = hessian[:, 4] = 0  # an input that was always 0
    factor = gptq.inverse_factor(hessian, 0.05)
    assert factor.dtype == dtype and torch.equal(factor, factor.triu())
    assert bool((factor.diagonal() > 0).all())
    alive = hessian.double()
    alive[4, 4] = 1
    want = torch.linalg.inv(alive + 0.05 * alive.diagonal().mean() * torch.eye(30))
    torch.testing.assert_close((factor.t() @ factor).double(), want, atol=1e-4, rtol=1e-3)


# ---------------------------------------------------------------- whole matrices


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse", "hessian"])
@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize(("bits", "group", "symmetric"), [(4, 32, True), (3, 24, False),
                                                          (3, None, True), (8, None, True)])
def test_less_output_error_than_rounding_to_nearest(bits: int, group: int | None, symmetric: bool,
                                                    act_order: bool, ranges: str) -> None:
    mine = nearest = 0.0
    for seed in range(3):
        weight, hessian = case(16, 100, seed, tokens=300)
        got = gptq.gptq(weight, hessian, bits, group, symmetric, act_order=act_order,
                        ranges=ranges)  # type: ignore[arg-type]
        width = group or 100
        assert got.values.shape == (16, 100) and got.bits == bits and got.group == width
        assert got.scales.shape == got.zeros.shape == (16, -(-100 // width))
        assert int(got.values.max()) < 2**bits and (got.scales > 0).all()
        assert got.symmetric == symmetric
        mine += error(weight, got, hessian)
        rtn = affine.rtn(weight, bits, group, symmetric,
                         "minmax" if ranges == "hessian" else ranges)  # type: ignore[arg-type]
        nearest += error(weight, rtn, hessian)
    assert mine < 0.7 * nearest


def test_scales_are_those_that_will_be_stored() -> None:
    weight, hessian = case(8, 64, 1)
    got = gptq.gptq(weight, hessian, 4, 32, False, scale_dtype=torch.bfloat16)
    assert torch.equal(got.scales, got.scales.bfloat16().float())
    whole = codes.pack(got, torch.bfloat16).dequantize().float()
    torch.testing.assert_close(whole, got.dequantize(), rtol=2**-8, atol=0)


def test_the_weight_and_the_hessian_stay_as_they_are() -> None:
    weight, hessian = case(3, 20, 2)
    before = weight.clone(), hessian.clone()
    for act_order in (True, False):
        gptq.gptq(weight, hessian, 4, 8, act_order=act_order)
    assert torch.equal(weight, before[0]) and torch.equal(hessian, before[1])
    half = gptq.gptq(weight.bfloat16(), hessian, 4, 8)
    want = gptq.gptq(weight.bfloat16().float(), hessian, 4, 8)
    assert torch.equal(half.values, want.values)


# ---------------------------------------------------------------- what may go wrong


def test_dead_columns_are_rounded_to_nearest_and_hand_nothing_on() -> None:
    weight, hessian = case(4, 30, 9)
    dead = torch.tensor([0, 7, 29])
    hessian[dead] = 0
    hessian[:, dead] = 0
    for act_order in (True, False):
        got = gptq.gptq(weight, hessian, 4, None, act_order=act_order)
        want = affine.rtn(weight, 4)
        assert torch.equal(got.values[:, dead], want.values[:, dead])
        rest = [i for i in range(30) if i not in dead.tolist()]
        other = weight.clone()
        other[:, dead] = 0
        scales = got.scales.expand(-1, 27)
        order = hessian[rest][:, rest].diagonal().argsort(descending=True, stable=True)
        order = order if act_order else torch.arange(27)
        small = hessian[rest][:, rest][order][:, order]
        damped = small + 0.01 * hessian.diagonal().mean() * torch.eye(27)
        values, _ = gptq.quantize_block(weight[:, rest][:, order],
                                        gptq.inverse_factor(damped, 0.0), scales,
                                        torch.full((4, 27), 8.0), 4)
        agree = (got.values[:, rest][:, order] == values).float().mean()
        assert agree > 0.95  # the damping counts the ones on the dead diagonal
    nothing = gptq.gptq(weight, torch.zeros(30, 30), 4, 10)
    assert torch.equal(nothing.values, affine.rtn(weight, 4, 10).values)


def test_few_tokens_make_a_singular_hessian_that_damping_mends() -> None:
    weight, hessian = case(8, 64, 4, tokens=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = gptq.gptq(weight, hessian, 4, 32)
    assert error(weight, got, hessian) < 0.5 * error(weight, affine.rtn(weight, 4, 32), hessian)


def test_a_failed_factorisation_is_told_and_mended() -> None:
    weight, hessian = case(8, 64, 4, tokens=5)
    hessian -= 1e-4 * hessian.diagonal().mean() * torch.eye(64)  # eigenvalues below 0
    with pytest.warns(UserWarning, match="no Cholesky factor"):
        got = gptq.gptq(weight, hessian, 4, 32, damping=0.0)
    assert error(weight, got, hessian) < error(weight, affine.rtn(weight, 4, 32), hessian)
    with (pytest.raises(ConfigError, match="Gather it again"),
          pytest.warns(UserWarning, match="float64")):
        gptq.gptq(weight, torch.eye(64) + 50 * (1 - torch.eye(64)), 4, 32)


def test_bad_arguments_are_named() -> None:
    weight, hessian = case(4, 16, 0)
    with pytest.raises(ConfigError, match=r"Hessian \[16, 16\]"):
        gptq.gptq(weight, hessian[:8, :8])
    with pytest.raises(ConfigError, match="damping is -1"):
        gptq.gptq(weight, hessian, damping=-1)
    with pytest.raises(ConfigError, match="not finite"):
        gptq.gptq(weight, hessian * torch.nan)
    with pytest.raises(ConfigError, match="bits"):
        gptq.gptq(weight, hessian, 9)
    weight[1, 2] = torch.inf
    with pytest.raises(ConfigError, match="row 1"):
        gptq.gptq(weight, hessian)
