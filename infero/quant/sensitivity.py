"""Which matrices may have how many bits: measure each alone, then share out a budget. Chapter 5.

Matrices differ in how much their rounding moves the model's predictions. `measure` rounds one
matrix at a time, to each of a few bit widths, and lets everything behind it run: what comes out is
the KL divergence in nats a token that this one matrix costs. `choose` then finds the bits of each
matrix with the least sum of costs under a budget of bits. That the costs of several matrices add up
is an assumption; it holds while each is small (HAWQ-V2, arXiv:1911.03852, and HAWQ-V3,
arXiv:2011.10680, choose by a sum as well, of second derivatives times squared errors).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infero import evaluate
from infero.errors import ConfigError
from infero.quant import affine, calibration
from infero.quant.fold import MATRICES

if TYPE_CHECKING:
    from infero.model import Model

OPTIONS = (2, 3, 4, 8)
FINEST = 1 << 17  # units that a budget is cut into at most: bounds the memory of `choose`
Round = Callable[[Tensor, int], Tensor]  # a weight and bits -> the weight after rounding


def nearest(group: int | None = 64, symmetric: bool = True, ranges: Any = "mse") -> Round:
    """Rounding to nearest, as `measure` takes it; 8 bits have one scale a row."""
    def rounded(weight: Tensor, bits: int) -> Tensor:
        codes = affine.rtn(weight, bits, group if bits < 8 else None, symmetric, ranges)
        return codes.dequantize().to(weight.dtype)
    return rounded


def measure(model: Model, ids: Tensor | Sequence[int], options: Sequence[int] = OPTIONS,
            group: int | None = 64, symmetric: bool = True, *, rounding: Round | None = None,
            progress: Callable[[int, int], None] | None = None) -> Tensor:
    """The KL divergence that rounding one matrix alone costs: [matrices, options], nats a token.

    ids: [n, length] windows of text (`calibration.sequences`) or one window; a few hundred tokens
    are enough. Matrices come layer by layer, in each in the order of `fold.MATRICES`. rounding: by
    default to nearest in groups. progress(layers done, layers) is called after each layer. The
    model stays as it is. What all variants of a layer have in common is computed once, and they run
    through the layers behind it together.
    """
    windows = torch.as_tensor(ids, dtype=torch.int64)
    hidden = calibration.embed(model, windows.view(-1, windows.shape[-1]))
    rounded, layers = rounding or nearest(group, symmetric), model.config.num_layers
    states = [hidden]
    for index in range(layers):
        states.append(calibration.advance(model, index, states[-1]))
    reference = _logprobs(model, states[-1])
    costs = []
    for index in range(layers):
        variants = [_advance_changed(model, index, states[index], name, rounded, bits)
                    for name in MATRICES for bits in options]
        x = torch.cat(variants)
        for later in range(index + 1, layers):
            x = calibration.advance(model, later, x)
        costs += [evaluate.kl_divergence(reference, _logprobs(model, each)).mean()
                  for each in x.split(len(hidden))]
        if progress is not None:
            progress(index + 1, layers)
    return torch.stack(costs).cpu().view(-1, len(options))


def sizes_of(model: Model) -> list[int]:
    """Weights of every matrix, in the order of `measure`."""
    return [math.prod(getattr(layer, name).shape) for layer in model.layers for name in MATRICES]


def choose(costs: Tensor | Sequence[Sequence[float]], sizes: Sequence[int], options: Sequence[int],
           budget_bits: float) -> list[int]:
    """The bits of each matrix with the least sum of costs within a budget, by dynamic programming.

    costs: [matrices, options]; sizes: weights of each matrix; options: bits, in the order of the
    costs' columns. sum(size * bits) must not exceed budget_bits * sum(sizes). Counted in units
    (`units`), of which a matrix at b bits takes ceil(size * b / unit). Returns bits, one a matrix.
    Raises ConfigError where not even the fewest bits fit.
    """
    unit, room = units(sizes, options, budget_bits)
    least, picks = torch.zeros(room + 1, dtype=torch.float64), []  # of the matrices so far, by room
    for prices, size in zip(torch.as_tensor(costs, dtype=torch.float64), sizes, strict=True):
        tries = torch.full((len(options), room + 1), math.inf, dtype=torch.float64)
        for row, price, bits in zip(tries, prices, options, strict=True):
            used = -(-size * bits // unit)
            row[used:] = least[: max(room + 1 - used, 0)] + price
        least, pick = tries.min(dim=0)
        picks.append(pick)
    chosen: list[int] = []
    for pick, size in zip(reversed(picks), reversed(sizes), strict=True):
        chosen.insert(0, options[int(pick[room])])
        room -= -(-size * chosen[0] // unit)
    return chosen


def units(sizes: Sequence[int], options: Sequence[int], budget_bits: float) -> tuple[int, int]:
    """The bits that a unit has, and the units of the budget: (unit, room).

    The unit is the greatest that divides every size, so that counting in it is exact. Where that
    makes more than FINEST units of the budget, it is larger, and exact to one unit a matrix.
    """
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"The matrices have the sizes {list(sizes)[:4]}...; each has 1 or more.")
    total = sum(sizes)
    if budget_bits < min(options):
        raise ConfigError(f"A budget of {budget_bits:g} bits a weight is below the fewest there "
                          f"are, {min(options)}: raise the budget, or allow fewer bits.")
    whole = math.gcd(*sizes)
    bits = math.floor(min(budget_bits, max(options)) * total + 1e-6)
    if bits // whole <= FINEST:
        return whole, bits // whole
    unit = max(1, -(-bits // FINEST))
    return unit, max(bits // unit, sum(-(-size * min(options) // unit) for size in sizes))


def _advance_changed(model: Model, index: int, hidden: Tensor, name: str, rounded: Round,
                     bits: int) -> Tensor:
    """Hidden states through layer `index` with one of its matrices rounded."""
    layer, layers = model.layers[index], list(model.layers)
    layers[index] = dataclasses.replace(layer, **{name: rounded(getattr(layer, name), bits)})
    return calibration.advance(dataclasses.replace(model, layers=layers), index, hidden)


def _logprobs(model: Model, hidden: Tensor) -> Tensor:
    """Log-probabilities [tokens, vocab] of hidden states [n, length, hidden]."""
    return evaluate.logprobs(model, hidden.flatten(0, 1))
