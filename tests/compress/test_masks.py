"""Masks and scores: magnitude and Wanda."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infero.compress import magnitude, wanda
from infero.errors import ConfigError


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 5), groups=st.integers(1, 6), m=st.sampled_from([2, 4, 8]),
       seed=st.integers(0, 99), data=st.data())
def test_n_of_m_keeps_the_largest_of_every_group(rows: int, groups: int, m: int, seed: int,
                                                 data: st.DataObject) -> None:
    n = data.draw(st.integers(1, m))
    scores = torch.rand(rows, groups * m, generator=torch.Generator().manual_seed(seed))
    keep = magnitude.keep_n_of_m(scores, n, m).view(-1, m)
    assert (keep.sum(1) == n).all()
    for group, kept in zip(scores.view(-1, m), keep, strict=True):
        assert group[kept].min() >= group[~kept].max() if n < m else True


def test_ties_go_to_the_left() -> None:
    keep = magnitude.keep_n_of_m(torch.ones(1, 8), 2, 4)
    assert keep.tolist() == [[True, True, False, False] * 2]
    rows = magnitude.keep_largest(torch.ones(2, 4), 0.5)
    assert rows.tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(3, 8), (7, 33)])
def test_share_that_goes(sparsity: float, shape: tuple[int, int]) -> None:
    scores = torch.rand(shape)
    rows = magnitude.keep_largest(scores, sparsity, per="row")
    assert ((~rows).sum(1) == int(sparsity * shape[1])).all()
    matrix = magnitude.keep_largest(scores, sparsity, per="matrix")
    assert (~matrix).sum() == int(sparsity * scores.numel())
    if sparsity > 0:
        assert scores[matrix].min() >= scores[~matrix].max()


def test_pruned_weights_are_the_old_ones_or_zero() -> None:
    weight = torch.randn(6, 16)
    for pruned in (magnitude.prune(weight), magnitude.prune(weight, pattern=(2, 4)),
                   wanda.prune(weight, torch.rand(16)), wanda.prune(weight, torch.rand(16),
                                                                     pattern=(4, 8))):
        kept = pruned != 0
        assert torch.equal(pruned[kept], weight[kept])
        assert magnitude.sparsity_of(pruned) == 0.5


def test_wanda_sees_the_inputs() -> None:
    # a small weight on a loud input outranks a large one on a quiet input
    weight = torch.tensor([[1.0, -0.2]])
    assert wanda.prune(weight, torch.tensor([0.01, 4.0])).tolist() == [[0.0, pytest.approx(-0.2)]]
    assert magnitude.prune(weight).tolist() == [[1.0, 0.0]]


def test_wanda_is_the_best_single_removal_with_uncorrelated_inputs() -> None:
    g = torch.Generator().manual_seed(0)
    weight, sizes = torch.randn(5, 8, generator=g), torch.rand(8, generator=g) + 0.1
    loss = (weight**2 * sizes)  # of removing one weight, if inputs are uncorrelated
    pruned = wanda.prune(weight, sizes, sparsity=1 / 8)
    assert torch.equal((pruned == 0).int().argmax(1), loss.argmin(1))


@pytest.mark.parametrize(("change", "words"), [
    ({"sparsity": 1.0}, "sparsity is 1.0"),
    ({"pattern": (2, 4), "weight": torch.ones(2, 6)}, "multiple of m"),
    ({"pattern": (5, 4)}, "0 < n <= m"),
    ({"weight": torch.full((2, 8), float("nan"))}, "NaN or Inf"),
    ({"weight": torch.ones(8)}, "no matrix"),
])
def test_refusals(change: dict, words: str) -> None:
    arguments = {"weight": torch.ones(2, 8), **change}
    with pytest.raises(ConfigError, match=words):
        magnitude.prune(**arguments)
