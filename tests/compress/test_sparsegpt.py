"""SparseGPT against least squares worked out directly."""

from __future__ import annotations

import pytest
import torch

from infero.compress import magnitude, sparsegpt, wanda
from infero.errors import ConfigError
from infero.quant import gptq


def problem(out: int, inputs: int, tokens: int = 400, seed: int = 0) -> tuple:
    """(weight, hessian) in float64 of correlated inputs."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=g, dtype=torch.float64) / inputs**0.5
    mix += torch.randn(inputs, generator=g, dtype=torch.float64).exp().diag()  # some are loud
    x = torch.randn(tokens, inputs, generator=g, dtype=torch.float64) @ mix
    weight = torch.randn(out, inputs, generator=g, dtype=torch.float64)
    return weight, x.T @ x / tokens


def upper(hessian: torch.Tensor) -> torch.Tensor:
    return torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)


def loss(weight: torch.Tensor, other: torch.Tensor, hessian: torch.Tensor) -> float:
    d = (weight - other).double()
    return float(((d @ hessian) * d).sum())


def test_sweep_of_the_first_columns_is_the_best_there_is() -> None:
    """Where all that goes stands left of all that stays, nothing is fixed too early."""
    weight, hessian = problem(4, 9)
    keep = torch.ones(4, 9, dtype=torch.bool)
    keep[:, :4] = False
    got, _ = sparsegpt.sweep(weight, keep, upper(hessian))
    stay = torch.arange(4, 9)
    best = weight @ hessian[:, stay] @ torch.linalg.inv(hessian[stay][:, stay])
    assert (got[:, :4] == 0).all()
    torch.testing.assert_close(got[:, 4:], best, rtol=1e-9, atol=1e-9)


def test_the_errors_add_up_to_the_loss() -> None:
    weight, hessian = problem(3, 12, seed=1)
    keep = torch.rand(3, 12, generator=torch.Generator().manual_seed(1)) > 0.5
    got, errors = sparsegpt.sweep(weight, keep, upper(hessian))
    assert float(errors.square().sum()) == pytest.approx(loss(weight, got, hessian), rel=1e-9)


def test_one_weight_against_the_surgeon() -> None:
    """The cost of removing weight 0 and moving all others is w² / (2 [H^-1]_00) times two."""
    weight, hessian = problem(1, 6, seed=2)
    keep = torch.ones(1, 6, dtype=torch.bool)
    keep[0, 0] = False
    got, _ = sparsegpt.sweep(weight, keep, upper(hessian))
    inverse = torch.linalg.inv(hessian)
    surgeon = weight - weight[0, 0] / inverse[0, 0] * inverse[0]
    torch.testing.assert_close(got, surgeon, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pattern", [None, (2, 4), (4, 8)])
@pytest.mark.parametrize("block", [16, 64])
def test_beats_wanda_and_magnitude(pattern: tuple[int, int] | None, block: int) -> None:
    weight, hessian = problem(24, 64, seed=3)
    weight, hessian = weight.float(), hessian.float()
    by = {
        "sparsegpt": sparsegpt.prune(weight, hessian, 0.5, pattern, block=block),
        "wanda": wanda.prune(weight, hessian.diagonal(), 0.5, pattern),
        "magnitude": magnitude.prune(weight, 0.5, pattern, per="row"),
    }
    lost = {name: loss(weight, pruned, hessian.double()) for name, pruned in by.items()}
    assert lost["sparsegpt"] < 0.85 * lost["wanda"] < 0.6 * lost["magnitude"]
    assert magnitude.sparsity_of(by["sparsegpt"]) == 0.5
    if pattern is not None:
        groups = by["sparsegpt"].view(-1, pattern[1])
        assert int((groups != 0).sum(1).max()) == pattern[0]


def test_block_size_changes_only_the_choice() -> None:
    """With the mask fixed by magnitude of nothing (keep all), nothing changes at all."""
    weight, hessian = problem(5, 40, seed=4)
    weight = weight.float()
    got = sparsegpt.prune(weight, hessian.float(), sparsity=0.0, block=16)
    torch.testing.assert_close(got, weight)


def test_a_dead_input_and_a_rank_deficient_hessian() -> None:
    g = torch.Generator().manual_seed(5)
    x = torch.randn(6, 16, generator=g)  # fewer tokens than inputs
    x[:, 3] = 0
    weight = torch.randn(8, 16, generator=g)
    got = sparsegpt.prune(weight, x.T @ x / 6, 0.5)
    assert torch.isfinite(got).all()
    assert (got[:, 3] == 0).all()


def test_in_the_weights_own_dtype_and_without_touching_it() -> None:
    weight, hessian = problem(4, 16, seed=6)
    weight = weight.bfloat16()
    before = weight.clone()
    assert sparsegpt.prune(weight, hessian.float()).dtype == torch.bfloat16
    assert torch.equal(weight, before)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"is \[8, 8\]"):
        sparsegpt.prune(torch.ones(2, 8), torch.eye(7))
    with pytest.raises(ConfigError, match="block of 6"):
        sparsegpt.prune(torch.ones(2, 8), torch.eye(8), pattern=(2, 4), block=6)


def test_the_factor_is_gptqs() -> None:
    _, hessian = problem(1, 10, seed=7)
    factor = gptq.inverse_factor(hessian.float(), 0.0)
    torch.testing.assert_close(factor.double(), upper(hessian), rtol=1e-3, atol=1e-3)
