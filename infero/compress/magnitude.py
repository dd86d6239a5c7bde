"""Which weights stay: masks by the largest scores, free or n out of every m.

Chapter 6 explains them. A method of pruning is a score for each weight; what a mask may look like
is a separate choice, and it decides whether hardware gains anything. `mask` with the scores
|w| is magnitude pruning (Han et al., arXiv:1506.02626); Wanda and SparseGPT bring other scores.
n:m sparsity: Mishra et al., arXiv:2104.08378.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.errors import ConfigError

Pattern = tuple[int, int]  # (n, m): n of every m neighbours in a row stay


def keep_n_of_m(scores: Tensor, n: int, m: int) -> Tensor:
    """In every m neighbours of a row, keep the n with the largest scores.

    scores: [out, in]; m divides `in`, and groups begin at column 0. Returns a bool mask [out, in],
    True where the weight stays: exactly n in every group. Of equal scores the left one stays.
    """
    groups = scores.reshape(-1, m)
    order = groups.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(groups, dtype=torch.bool)
    keep.scatter_(1, order[:, :n], True)
    return keep.view(scores.shape)


def keep_largest(scores: Tensor, sparsity: float, per: str = "row") -> Tensor:
    """Keep the largest scores of each row, or of the whole matrix.

    scores: [out, in]; `sparsity`: the share that goes, rounded down to whole weights of a row
    (per="row") or of the matrix (per="matrix"). Returns a bool mask [out, in]. Of equal scores the
    first stays.
    """
    if per not in ("row", "matrix"):
        raise ConfigError(f"per is {per!r}; scores are compared within a 'row' or a 'matrix'.")
    rows = scores if per == "row" else scores.reshape(1, -1)
    kept = rows.shape[1] - int(sparsity * rows.shape[1])
    order = rows.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(rows, dtype=torch.bool)
    keep.scatter_(1, order[:, :kept], True)
    return keep.view(scores.shape)


def check(weight: Tensor, sparsity: float, pattern: Pattern | None) -> None:
    """Refuse what no mask can be made for."""
    if weight.dim() != 2:
        raise ConfigError(f"A weight of shape {tuple(weight.shape)} is no matrix [out, in].")
    if not bool(torch.isfinite(weight).all()):
        raise ConfigError("The weight has NaN or Inf in it, which no score can rank: load the model"
                          " again, or find the layer that produced them.")
    if pattern is None:
        if not 0.0 <= sparsity < 1.0:
            raise ConfigError(f"sparsity is {sparsity}; it is the share of weights that go, from 0 "
                              "to below 1.")
        return
    n, m = pattern
    if not 0 < n <= m or weight.shape[1] % m:
        raise ConfigError(f"Keeping {n} of every {m} needs 0 < n <= m, and rows whose length is a "
                          f"multiple of m; these rows have {weight.shape[1]} weights.")


def mask(scores: Tensor, sparsity: float = 0.5, pattern: Pattern | None = None,
         per: str = "row") -> Tensor:
    """The mask of the largest scores: by `pattern` where there is one, else by `sparsity`."""
    check(scores, sparsity, pattern)
    if pattern is not None:
        return keep_n_of_m(scores, *pattern)
    return keep_largest(scores, sparsity, per)


def prune(weight: Tensor, sparsity: float = 0.5, pattern: Pattern | None = None,
          per: str = "matrix") -> Tensor:
    """Magnitude pruning: the smallest weights become 0. weight [out, in]; returns a new one."""
    return weight * mask(weight.abs().float(), sparsity, pattern, per)


def sparsity_of(weight: Tensor) -> float:
    """The share of zeros."""
    return float((weight == 0).float().mean())
