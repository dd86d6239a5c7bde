"""What Lab 5 demands where something is chosen: AWQ's factors, and bits under a budget.

The oracle of the search rounds in float64 with its own few lines; that of the budget tries every
combination. Chapter 5 explains the pieces.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import torch
from torch import Tensor

from infero.lab.checking import Check, Mistake

# ---------------------------------------------------------------- 4: awq.search


def nearest(weight: Tensor, bits: int, group: int | None, symmetric: bool) -> Tensor:
    """Weight [out, in] rounded to nearest and back, in float64."""
    inputs = weight.shape[1]
    size = inputs if group is None else min(group, inputs)
    parts = []
    for part in weight.double().split(size, dim=1):
        if symmetric:
            scale = part.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            zero = torch.tensor(2.0 ** (bits - 1))
        else:
            low, high = (part.amin(1, keepdim=True).clamp(max=0),
                         part.amax(1, keepdim=True).clamp(min=0))
            scale = (high - low) / (2 ** bits - 1)
            zero = (-low / scale).round()
        parts.append((((part / scale).round() + zero).clamp(0, 2 ** bits - 1) - zero) * scale)
    return torch.cat(parts, dim=1)


def factors(mean_abs: Tensor, alpha: float) -> Tensor:
    """The factors of one exponent, with the largest and the smallest balanced around 1."""
    raw = mean_abs.double() ** alpha
    return raw / (raw.max() * raw.min()).sqrt()


def losses(weight: Tensor, rows: Tensor, mean_abs: Tensor, bits: int, group: int | None,
           symmetric: bool, grid: int) -> list[float]:
    """The squared output error for each exponent of the grid."""
    found = []
    for i in range(grid):
        s = factors(mean_abs, i / grid)
        error = nearest(weight.double() * s, bits, group, symmetric) / s - weight.double()
        found.append(float((rows.double() @ error.T).pow(2).mean()))
    return found


def search(c: Check) -> None:
    """Inputs of very unequal size; the best exponent is neither the first nor the last."""
    for seed in c.seeds(2):
        for out, inputs, bits, group, symmetric, grid in (
                (6, 16, 3, 8, True, 10), (5, 12, 4, None, False, 6), (8, 21, 3, 8, True, 5)):
            given = _search_inputs(c, seed, out, inputs, (bits, group, symmetric, grid))
            weight, rows, mean_abs, table = given
            got = c.call(weight, rows, mean_abs, bits, group, symmetric, grid)
            _judge_factors(c, got, mean_abs, table, weight, rows, (bits, group, symmetric))


def _search_inputs(c: Check, seed: int, out: int, inputs: int,
                   how: Any) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    for attempt in range(30):
        g = c.generator(seed + 104729 * attempt)
        size = torch.exp(1.2 * torch.randn(inputs, generator=g))
        rows = torch.randn(24, inputs, generator=g) * size
        weight = torch.randn(out, inputs, generator=g)
        mean_abs = rows.abs().mean(0) * (1 + 0.1 * torch.rand(inputs, generator=g))
        table = losses(weight, rows, mean_abs, *how)
        ranked = sorted(table)
        best = table.index(ranked[0])
        if 0 < best < len(table) - 1 and ranked[0] < 0.99 * ranked[1]:
            break
    return weight, rows, mean_abs, table


def _judge_factors(c: Check, got: Any, mean_abs: Tensor, table: list[float], weight: Tensor,
                   rows: Tensor, how: tuple[int, int | None, bool]) -> None:
    grid, best = len(table), table.index(min(table))
    want = factors(mean_abs, best / grid)
    raw = mean_abs.double()
    weights_only = []
    for i in range(grid):
        s = factors(mean_abs, i / grid)
        off = nearest(weight.double() * s, *how) / s - weight.double()
        weights_only.append(float(off.pow(2).mean()))
    known = {
        "inverted": ("These are the inverse factors: channels with large inputs are to be made "
                     "larger before rounding", 1 / want),
        "not-normalised": ("The exponent is right, but the factors are not divided by the root of "
                           "largest times smallest", raw ** (best / grid)),
        "divided-by-max": ("The exponent is right, but the factors are divided by their largest "
                           "instead of by the root of largest times smallest",
                           raw ** (best / grid) / (raw ** (best / grid)).max()),
        "no-search": ("These are all 1: nothing was searched, or only the weight's own error "
                      "counted", torch.ones_like(raw)),
        "worst": ("These are the factors with the largest error",
                  factors(mean_abs, table.index(max(table)) / grid)),
        "exponent-one": ("The exponent is 1 always; the best one is to be searched",
                         raw / (raw.max() * raw.min()).sqrt()),
        "exponent-half": ("The exponent is 1/2 always; the best one is to be searched",
                          factors(mean_abs, 0.5)),
        "weights-error": ("The error of the weights is made least. The error of the output is what "
                          "counts: multiply by the rows",
                          factors(mean_abs, weights_only.index(min(weights_only)) / grid)),
        "last": ("These are the factors of the last exponent: keep those of the least error",
                 factors(mean_abs, (grid - 1) / grid)),
    }
    telling = {key: pair for key, pair in known.items()
               if not torch.allclose(pair[1], want, rtol=1e-3)}
    if isinstance(got, Tensor) and got.shape == want.shape and not _close(got, want):
        named = any(_close(got, pair[1]) for pair in telling.values())
        at = next((i for i in range(grid) if _close(got, factors(mean_abs, i / grid))), None)
        if at is not None and not named:
            raise Mistake(f"These are the factors of exponent {at}/{grid}, with an output error of "
                          f"{table[at]:.3g}; exponent {best}/{grid} has {table[best]:.3g}.",
                          "other-exponent")
    c.expect_close(got, want.float(), axes=("input",), rtol=1e-3, atol=0.0, what="the factors",
                   known=telling)


def _close(got: Tensor, want: Tensor) -> bool:
    return torch.allclose(got.double(), want, rtol=1e-3, atol=0.0)


# ---------------------------------------------------------------- 6: sensitivity.choose


def choose(c: Check) -> None:
    """Costs that fall unevenly, sizes of which some are several times others, budgets between."""
    for seed in c.seeds(2):
        draw = random.Random(seed)
        for count, options in ((3, [2, 4, 8]), (4, [2, 3, 8]), (1, [3, 4]), (5, [3, 4])):
            sizes = [draw.choice((3, 5, 8, 16)) * 6 for _ in range(count)]
            costs = [sorted((draw.uniform(0, 4) ** 3 / 2 ** (2 * b - 4) for b in options),
                            reverse=True) for _ in range(count)]
            least, most = min(options), max(options)
            for budget in (draw.uniform(least, most), draw.uniform(least, 4.5), float(most)):
                _one_choice(c, costs, sizes, options, max(budget, least))
        gain = draw.uniform(1.55, 1.9)  # the best upgrade per bit blocks two that are better
        _one_choice(c, [[gain, 0.0], [1.0, 0.0], [1.0, 0.0]], [18, 12, 12], [2, 4], 22 / 7)


def _one_choice(c: Check, costs: list[list[float]], sizes: list[int], options: list[int],
                budget: float) -> None:
    got = c.call(torch.tensor(costs), sizes, options, budget)
    limit = budget * sum(sizes)
    if not isinstance(got, (list, tuple)) or len(got) != len(sizes):
        raise Mistake(f"The result should be a list with the bits of each of the {len(sizes)} "
                      f"matrices; you gave {got!r}.", "form")
    bits = [int(b) for b in got]
    if any(b not in options for b in bits):
        if all(0 <= b < len(options) for b in bits):
            raise Mistake(f"You return positions in the list of options, {bits}; the bits "
                          "themselves are wanted.", "positions")
        raise Mistake(f"{next(b for b in bits if b not in options)} bits is none of the options "
                      f"{options}.", "not-an-option")
    used = sum(s * b for s, b in zip(sizes, bits, strict=True))
    if used > limit + 1e-6:
        if sum(bits) <= budget * len(sizes) + 1e-6:
            raise Mistake(f"The plain average of the bits keeps the budget of {budget:.2f}, but a "
                          "large matrix counts for more: weigh the bits by the sizes.",
                          "unweighted")
        raise Mistake(f"The budget is exceeded: {used / sum(sizes):.3f} bits a weight where "
                      f"{budget:.3f} are allowed.", "over-budget")
    cost = _cost(costs, options, bits)
    best = _cost(costs, options, _cheapest(costs, sizes, options, limit))
    if cost <= best * (1 + 1e-5) + 1e-9:
        return
    facts = f"your choice costs {cost:.4g}, the best one {best:.4g}, at {budget:.2f} bits"
    if all(b == options[0] for b in bits):
        raise Mistake(f"Every matrix keeps its fewest bits, and the budget is not used ({facts}).",
                      "nothing-spent")
    same = max(b for b in options if b <= budget + 1e-9)
    if all(b == same for b in bits):
        raise Mistake(f"Every matrix gets the same bits ({facts}): give more to those that gain "
                      "the most.", "uniform")
    if bits == _greedy(costs, sizes, options, limit):
        raise Mistake(f"This is the greedy choice: always the upgrade that gains the most per bit. "
                      f"It is near, but {facts}: a large step can block two better small ones.",
                      "greedy")
    if bits == _greedy(costs, sizes, options, limit, by_size=False):
        raise Mistake(f"This is a greedy choice that ignores what an upgrade costs in bits "
                      f"({facts}).", "greedy-by-gain")
    if bits == _cheapest(costs, [1] * len(sizes), options, budget * len(sizes)):
        raise Mistake(f"This would be the best choice if all matrices were of one size ({facts}): "
                      "weigh the bits by the sizes.", "unweighted")
    raise Mistake(f"There is a better choice within the budget: {facts}.", "not-best")


def _cost(costs: list[list[float]], options: list[int], bits: Any) -> float:
    return sum(row[options.index(b)] for row, b in zip(costs, bits, strict=True))


def _cheapest(costs: list[list[float]], sizes: list[int], options: list[int],
              limit: float) -> list[int]:
    """The best of all combinations within the limit."""
    fit = (each for each in itertools.product(options, repeat=len(sizes))
           if sum(s * b for s, b in zip(sizes, each, strict=True)) <= limit + 1e-6)
    return list(min(fit, key=lambda each: _cost(costs, options, each)))


def _greedy(costs: list[list[float]], sizes: list[int], options: list[int], limit: float,
            by_size: bool = True) -> list[int]:
    """Upgrade by upgrade, the largest fall of cost (per bit) that still fits."""
    at = [0] * len(sizes)
    while True:
        used = sum(s * options[a] for s, a in zip(sizes, at, strict=True))
        moves = []
        for i, a in enumerate(at):
            for b in range(a + 1, len(options)):
                bits = sizes[i] * (options[b] - options[a])
                gain = costs[i][a] - costs[i][b]
                if used + bits <= limit + 1e-6 and gain > 0:
                    moves.append((gain / bits if by_size else gain, i, b))
        if not moves:
            return [options[a] for a in at]
        _, i, b = max(moves, key=lambda m: m[0])
        at[i] = b
