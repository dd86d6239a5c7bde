"""SparseGPT: remove weights, and let the ones that remain make up for it.

Chapter 6 explains it. A layer's output on some text is a quadratic function of its weights with
the Hessian H = mean of x xᵀ. Removing weight j of a row and moving all later weights of the row by
the best amount costs w_j² / U_jj², where U is the upper Cholesky factor of the inverse, H⁻¹ = UᵀU:
the same factor that GPTQ rounds with (chapter 5). Frantar and Alistarh, arXiv:2301.00774; the
idea is the optimal brain surgeon of Hassibi and Stork (1993).
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.compress import magnitude
from infero.errors import ConfigError
from infero.quant import gptq


def sweep(weight: Tensor, keep: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Remove weights column by column; each error is made good by the columns to its right.

    weight: [out, in] float32; keep: [out, in] bool; factor: [in, in] upper triangular, U of
    H⁻¹ = UᵀU. For each column j from the left: the error is what is removed, divided by U[j, j]
    (0 where the weight stays), and row j of U times that error is subtracted from columns j, j + 1,
    and so on. Returns the new weight, exactly 0 where `keep` is False, and the errors [out, in].
    """
    w, errors = weight.clone(), torch.zeros_like(weight)
    for j in range(w.shape[1]):
        removed = torch.where(keep[:, j], 0.0, w[:, j])
        errors[:, j] = removed / factor[j, j]
        w[:, j:] -= errors[:, j, None] * factor[j, j:]
    return w * keep, errors


def prune(weight: Tensor, hessian: Tensor, sparsity: float = 0.5,
          pattern: magnitude.Pattern | None = None, *, damping: float = 0.01,
          block: int = 128) -> Tensor:
    """The weight with zeros where least is lost, and the rest moved to make up for it.

    weight: [out, in]; hessian: [in, in], the mean of x xᵀ over tokens. Without a pattern each
    block of columns loses the share `sparsity`, chosen when the sweep arrives there; a pattern
    chooses in each group of m as it arrives. Returns a new weight in weight's dtype.
    """
    magnitude.check(weight, sparsity, pattern)
    inputs = weight.shape[1]
    if hessian.shape != (inputs, inputs):
        raise ConfigError(f"The Hessian of a weight with {inputs} inputs is [{inputs}, {inputs}]; "
                          f"given was {tuple(hessian.shape)}.")
    dead = hessian.diagonal() == 0  # an input that is always 0 needs no weight
    factor = _factor(hessian.float(), dead, damping)
    w = weight.float().masked_fill(dead, 0.0)
    for start in range(0, inputs, block):
        end = min(start + block, inputs)
        done, errors = _block(w[:, start:end], factor[start:end, start:end], sparsity, pattern)
        w[:, start:end] = done
        w[:, end:] -= errors @ factor[start:end, end:]
    return w.to(weight.dtype)


def _factor(hessian: Tensor, dead: Tensor, damping: float) -> Tensor:
    """GPTQ's factor; with ten times the damping where the Hessian is not positive definite."""
    alive = hessian + torch.diag(dead * hessian.diagonal().mean().clamp(min=1e-12))
    for stronger in (1, 10, 100, 1000):
        try:
            return gptq.inverse_factor(alive, max(damping, 1e-6) * stronger)
        except torch.linalg.LinAlgError:
            continue
    raise ConfigError(f"No damping up to {1000 * damping:g} makes the Hessian positive definite: "
                      "the calibration text is too short, or holds NaN.")


def _block(w: Tensor, factor: Tensor, sparsity: float,
           pattern: magnitude.Pattern | None) -> tuple[Tensor, Tensor]:
    """One block of columns: (new columns, errors)."""
    saliency = (w / factor.diagonal()).square()
    if pattern is None:
        keep = magnitude.keep_largest(saliency, sparsity, per="matrix")
        return sweep(w, keep, factor)
    n, m = pattern
    if w.shape[1] % m:
        raise ConfigError(f"A block of {w.shape[1]} columns is no multiple of the pattern's {m}: "
                          "choose another block.")
    w, errors = w.clone(), torch.zeros_like(w)
    for a in range(0, w.shape[1], m):
        b = a + m
        saliency = (w[:, a:b] / factor.diagonal()[a:b]).square()
        keep = magnitude.keep_n_of_m(saliency, n, m)
        w[:, a:b], errors[:, a:b] = sweep(w[:, a:b], keep, factor[a:b, a:b])
        w[:, b:] -= errors[:, a:b] @ factor[a:b, b:]
    return w, errors
