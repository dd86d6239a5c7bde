"""Wanda: a weight matters as much as what it is multiplied by.

Chapter 6 explains it. Score each weight by |w| times the root mean square of its input, compare
within a row, remove the smallest. No weight that stays is changed, and no gradient is needed: one
pass over some text gives the inputs. Sun et al., arXiv:2306.11695.
"""

from __future__ import annotations

from torch import Tensor

from infero.compress import magnitude


def scores(weight: Tensor, mean_square: Tensor) -> Tensor:
    """How much each weight matters: its size times the typical size of its input.

    weight: [out, in]; mean_square: [in], the mean over tokens of the square of each input channel.
    Returns |weight| times the root of mean_square, [out, in] in float32.
    """
    return weight.float().abs() * mean_square.float().sqrt()


def prune(weight: Tensor, mean_square: Tensor, sparsity: float = 0.5,
          pattern: magnitude.Pattern | None = None) -> Tensor:
    """The weight without those that matter least in their row (or in their group of a pattern).

    weight: [out, in]; mean_square: [in], the diagonal of the mean of x xᵀ.
    """
    magnitude.check(weight, sparsity, pattern)
    return weight * magnitude.mask(scores(weight, mean_square), sparsity, pattern, per="row")
