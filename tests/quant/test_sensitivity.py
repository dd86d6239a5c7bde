"""What each matrix costs, and the best way to spend a budget, against every way there is."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random

import pytest
import torch

from infero import evaluate
from infero import model as m
from infero.errors import ConfigError
from infero.quant import affine, sensitivity
from infero.quant.fold import MATRICES


def test_costs_are_those_of_one_rounded_matrix_in_the_whole_model(tiny_model: m.Model) -> None:
    ids = torch.randint(0, 211, (2, 17), generator=torch.Generator().manual_seed(0))
    seen: list[tuple[int, int]] = []
    before = copy.deepcopy([vars(layer) for layer in tiny_model.layers])
    got = sensitivity.measure(tiny_model, ids, (2, 4, 8), 16,
                              progress=lambda done, all_: seen.append((done, all_)))
    assert got.shape == (12, 3) and seen == [(1, 3), (2, 3), (3, 3)]
    for layer, kept in zip(tiny_model.layers, before, strict=True):
        assert all(torch.equal(getattr(layer, k), v) for k, v in kept.items() if v is not None)
    assert bool((got >= -1e-6).all())
    assert bool((got[:, 0] > got[:, 1]).all() and (got[:, 1] > got[:, 2]).all())
    # the whole text in one window each: evaluate predicts every token but the window's first
    for row, column in ((0, 0), (5, 1), (11, 2), (7, 0)):
        index, name, bits = row // 4, MATRICES[row % 4], (2, 4, 8)[column]
        layers = list(tiny_model.layers)
        rounded = affine.rtn(getattr(layers[index], name), bits, 16 if bits < 8 else None, True,
                             "mse").dequantize()
        layers[index] = dataclasses.replace(layers[index], **{name: rounded})
        changed = dataclasses.replace(tiny_model, layers=layers)
        kls = []
        for window in ids:
            text = [torch.cat((window, window[:1]))]
            p, q = (evaluate.logprobs(one, evaluate.hidden(one, text))
                    for one in (tiny_model, changed))
            kls.append(evaluate.kl_divergence(p, q))
        assert float(got[row, column]) == pytest.approx(float(torch.cat(kls).mean()), rel=1e-3,
                                                        abs=1e-6)
    one = sensitivity.measure(tiny_model, ids[0].tolist(), (3,), rounding=lambda w, bits: w)
    assert one.shape == (12, 1) and float(one.abs().max()) < 1e-5


def test_sizes_follow_the_same_order(tiny_model: m.Model) -> None:
    sizes = sensitivity.sizes_of(tiny_model)
    assert sizes == [80 * 48, 48 * 48, 160 * 48, 48 * 80] * 3


def every(costs: torch.Tensor, sizes: list[int], options: list[int], budget: float) -> float:
    """The least cost over all ways to give bits."""
    best = float("inf")
    for way in itertools.product(range(len(options)), repeat=len(sizes)):
        used = sum(size * options[i] for size, i in zip(sizes, way, strict=True))
        if used <= budget * sum(sizes) + 1e-6:
            best = min(best, sum(float(costs[k, i]) for k, i in enumerate(way)))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.randint(1, 6)
    options = sorted(draw.sample([2, 3, 4, 5, 6, 8], draw.randint(1, 4)))
    sizes = [draw.choice([3, 5, 8, 16]) * draw.choice([1, 7, 192]) for _ in range(n)]
    costs = torch.rand(n, len(options), generator=torch.Generator().manual_seed(seed))
    if seed % 3:
        costs = costs.sort(dim=1, descending=True).values
    for budget in (options[0], options[0] + 0.4, sum(options) / len(options), options[-1] + 1):
        got = sensitivity.choose(costs, sizes, options, budget)
        assert len(got) == n and all(bits in options for bits in got)
        used = sum(size * bits for size, bits in zip(sizes, got, strict=True))
        assert used <= budget * sum(sizes) + 1e-6
        spent = sum(float(costs[k, options.index(bits)]) for k, bits in enumerate(got))
        assert spent == pytest.approx(every(costs, sizes, options, budget))
        assert got == sensitivity.choose(costs.tolist(), tuple(sizes), options, budget)


def test_where_the_greedy_way_fails() -> None:
    # the best gain a bit is the small matrix's; then the large one no longer fits
    costs = [[1.0, 0.0], [6.0, 0.0], [5.0, 0.0]]
    assert sensitivity.choose(costs, [1, 10, 10], [2, 3], 2 + 10 / 21) == [2, 3, 2]
    assert sensitivity.choose([[9.0, 2.0, 1.9]], [5], [2, 4, 8], 7.9) == [4]


def test_sizes_without_a_common_divisor_stay_within_the_budget(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "FINEST", 500)
    draw = torch.Generator().manual_seed(0)
    costs = torch.rand(20, 3, generator=draw).sort(dim=1, descending=True).values
    sizes = torch.randint(900, 1100, (20,), generator=draw).tolist()
    for budget in (2.0, 2.5, 3.9, 8.0):
        got = sensitivity.choose(costs, sizes, [2, 4, 8], budget)
        used = sum(size * bits for size, bits in zip(sizes, got, strict=True))
        assert used <= budget * sum(sizes) * 1.02
    assert got.count(8) >= 18


def test_a_budget_that_cannot_be_met_is_named() -> None:
    with pytest.raises(ConfigError, match="budget of 1"):
        sensitivity.choose([[1.0, 0.5]], [10], [2, 4], 1.5)
    with pytest.raises(ConfigError, match="sizes"):
        sensitivity.choose([[1.0, 0.5]], [0], [2, 4], 3)
