"""GPTQ: rounding that makes up for its own error (arXiv:2210.17323). Chapter 5.

A rounded weight changes the matrix's output by its error times the input. Inputs are correlated, so
much of that change can be taken back by moving the weights of the same row that are not rounded
yet: by how much, the matrix of input products H (the Hessian of the squared output error) says.
Optimal brain quantization (arXiv:2208.11580) chooses the next weight for every row anew. GPTQ takes
the columns in one order for all rows, so that one Cholesky factor holds every coefficient and the
rows are rounded together; and it hands errors on to the far columns one block at a time, by a
matrix product.

With U the upper Cholesky factor of H's inverse (H^-1 = U^T U), rounding column j with the error d
moves the later columns by -d / U[j, j] * U[j, later], and costs exactly (d / U[j, j]) ** 2.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.quant import affine
from infero.quant.codes import Codes

Ranges = Literal["minmax", "percentile", "mse", "hessian"]
SHARES = 24  # ranges that "hessian" tries, from all of a group's range down to SMALLEST of it
SMALLEST = 0.35
STRONGER = 10.0  # times the damping at each new attempt to factor a matrix
ATTEMPTS = 4


def gptq(weight: Tensor, hessian: Tensor, bits: int = 4, group: int | None = None,
         symmetric: bool = True, *, act_order: bool = False, damping: float = 0.01,
         block: int = 128, ranges: Ranges = "minmax",
         scale_dtype: torch.dtype = torch.float32) -> Codes:
    """Round a matrix so that its output on the calibration text changes little.

    weight: [out, in]; hessian: [in, in], the mean of x x^T (`calibration.Stats.hessian`). group
    None: one scale a row. act_order: the columns with the largest inputs first; groups stay where
    they are and get their scales from the weight as it was, so that any kernel can run the result.
    damping: share of the mean of H's diagonal that is added to the diagonal. block: columns at most
    between two updates of the rest. ranges: how a group's range is chosen; "hessian" tries shares
    of it and weighs a column's squared error by what it costs. scale_dtype: scales and zero points
    are rounded to it first, so that the errors made up for are those of the stored scales.
    """
    _check(weight, hessian, bits, group, symmetric, damping)
    inputs = weight.shape[1]
    group = inputs if group is None else min(group, inputs)
    left, hessian = weight.float(), hessian.to(weight.device, torch.float32)
    order = _order(hessian, act_order)
    hessian = hessian[order][:, order]
    factor = _factor(hessian, damping)
    costs = torch.empty_like(factor[0])
    costs[order] = factor.diagonal() ** -2.0  # of a squared error of 1, by column of the weight
    static = act_order or group == inputs
    if static:
        scales, zeros = _scales(left, costs, bits, group, symmetric, ranges, scale_dtype)
    else:
        shape = (weight.shape[0], -(-inputs // group))
        scales, zeros = left.new_empty(shape), left.new_empty(shape)
        block = -(-group // -(-group // block))  # blocks end where groups do
    left = left[:, order]  # a copy: it is changed below
    values = torch.empty(left.shape, dtype=torch.uint8, device=left.device)
    for first, last in _blocks(inputs, block, inputs if static else group):
        if not static and first % group == 0:  # as the errors so far have left this group
            here = slice(first, first + group)
            g = first // group
            scales[:, g : g + 1], zeros[:, g : g + 1] = _scales(
                left[:, here], costs[here], bits, group, symmetric, ranges, scale_dtype)
        groups, columns = order[first:last] // group, slice(first, last)
        values[:, columns], errors = quantize_block(
            left[:, columns], factor[columns, columns], scales[:, groups], zeros[:, groups], bits)
        left[:, last:].addmm_(errors, factor[columns, last:], alpha=-1)
    back = torch.empty_like(values)
    back[:, order] = values
    return Codes(back, scales, zeros, bits, group)


# ---------------------------------------------------------------- pieces (Lab 5)


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """The upper triangular U with U^T U = (H + damping * mean(diagonal of H) * I)^-1.

    hessian: H [in, in], symmetric, no eigenvalue below 0. An input that was always 0 has a 0 on the
    diagonal: it gets a 1 there first. Returns [in, in] in H's dtype. Raises
    torch.linalg.LinAlgError where the damped matrix is not positive definite in that precision.
    """
    eye = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    alive = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    damped = alive + damping * alive.diagonal().mean() * eye
    # H = R R^T with R upper triangular is the usual factor read backwards, and U = R^-1: the
    # inverse itself, which rounding spoils first, is never formed.
    upper = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1)
    return torch.linalg.solve_triangular(upper, eye, upper=True)


def quantize_block(weight: Tensor, factor: Tensor, scale: Tensor, zero: Tensor,
                   bits: int) -> tuple[Tensor, Tensor]:
    """Round a block's columns from left to right, each error handed on to the columns after it.

    weight: [out, n] float32, which stays as it is; factor: [n, n], the block's rows and columns of
    the upper factor U; scale, zero: [out, n], each column's own. Column j, as the columns before it
    have left it, is rounded (`affine.quantize`); the error of column j is what it was less what it
    is rounded to, over U[j, j]; every later column k of the block then loses error * U[j, k].
    Returns the values [out, n] uint8 and the errors [out, n] float32.
    """
    left, errors = weight.clone(), torch.zeros_like(weight)
    values = torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device)
    for j in range(weight.shape[1]):
        value = affine.quantize(left[:, j], scale[:, j], zero[:, j], bits)
        rounded = affine.dequantize(value, scale[:, j], zero[:, j])
        values[:, j] = value
        errors[:, j] = (left[:, j] - rounded) / factor[j, j]
        left[:, j + 1 :] -= errors[:, j, None] * factor[j, j + 1 :]
    return values, errors


# ---------------------------------------------------------------- around them


def output_error(change: Tensor, hessian: Tensor) -> float:
    """The mean over tokens of |change x|^2, for a change of the weight [out, in]."""
    change = change.to(hessian.dtype)
    return float(((change @ hessian) * change).sum())


def _check(weight: Tensor, hessian: Tensor, bits: int, group: int | None, symmetric: bool,
           damping: float) -> None:
    affine.check(weight, bits, group, symmetric)
    inputs = weight.shape[1]
    if hessian.shape != (inputs, inputs):
        raise ConfigError(f"A matrix of {inputs} inputs needs a Hessian [{inputs}, {inputs}]; "
                          f"given was one of shape {list(hessian.shape)}.")
    if not damping >= 0:
        raise ConfigError(f"damping is {damping}; it must be at least 0, and 0.01 is usual.")
    diagonal = hessian.diagonal()
    if not bool(hessian.isfinite().all()) or bool((diagonal < 0).any()):
        raise ConfigError("The Hessian has numbers that are not finite, or a diagonal below 0: "
                          "gather it again, in a dtype that the activations do not overflow.")


def _order(hessian: Tensor, act_order: bool) -> Tensor:
    """The columns in the order of rounding: [in] int64."""
    if act_order:
        return hessian.diagonal().argsort(descending=True, stable=True)
    return torch.arange(len(hessian), device=hessian.device)


def _blocks(inputs: int, block: int, group: int) -> list[tuple[int, int]]:
    """Blocks of columns, none of which reaches over the end of a group."""
    return [(first, min(first + block, end))
            for begin in range(0, inputs, group)
            for end in (min(begin + group, inputs),)
            for first in range(begin, end, block)]


def _factor(hessian: Tensor, damping: float) -> Tensor:
    """`inverse_factor` in float32, with more damping and at last in float64 where that fails.

    A column whose input is as good as 0 takes no part: it is rounded to nearest.
    """
    diagonal = hessian.diagonal()
    dead = diagonal <= diagonal.mean() * 1e-12
    alive = hessian.masked_fill(dead[:, None] | dead[None, :], 0.0)
    tried = damping
    for attempt in range(ATTEMPTS):
        try:
            factor = inverse_factor(alive, tried)
            if bool(factor.isfinite().all()):
                return factor.float()
        except torch.linalg.LinAlgError:
            pass
        if attempt + 1 < ATTEMPTS:
            tried = max(tried * STRONGER, 1e-4)
            alive = alive.double() if attempt + 2 == ATTEMPTS else alive
            warnings.warn(f"A Hessian of {len(hessian)} inputs has no Cholesky factor with damping "
                          f"{damping:g}: trying {tried:g} in {str(alive.dtype)[6:]}. A longer "
                          "calibration text, or more damping, avoids it.", stacklevel=3)
    raise ConfigError(f"No damping up to {tried:g} gives the Hessian a Cholesky factor: it is no "
                      "matrix of input products. Gather it again.")


def _scales(weight: Tensor, costs: Tensor, bits: int, group: int, symmetric: bool, ranges: Ranges,
            dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scales and zero points [out, groups] of a weight, as they will be stored."""
    if ranges == "hessian":
        scales, zeros = _weighted(weight, costs, bits, group, symmetric)
    else:
        codes = affine.rtn(weight, bits, group, symmetric, ranges)
        scales, zeros = codes.scales, codes.zeros
    return scales.to(dtype).float(), zeros.to(dtype).float()


def _weighted(weight: Tensor, costs: Tensor, bits: int, group: int,
              symmetric: bool) -> tuple[Tensor, Tensor]:
    """The share of each group's range with the least squared error, weighed by costs [in]."""
    done = []
    for part, cost in zip(weight.split(group, dim=1), costs.split(group), strict=True):
        low, high = part.amin(1), part.amax(1)
        best = affine.scale_and_zero(low, high, bits, symmetric)
        least = torch.full_like(low, torch.inf)
        for i in range(SHARES):
            share = 1 - i * (1 - SMALLEST) / (SHARES - 1)
            scale, zero = affine.scale_and_zero(low * share, high * share, bits, symmetric)
            values = affine.quantize(part, scale[:, None], zero[:, None], bits)
            back = affine.dequantize(values, scale[:, None], zero[:, None])
            error = (back - part).square_() @ cost
            better = error < least
            least = torch.where(better, error, least)
            best = (torch.where(better, scale, best[0]), torch.where(better, zero, best[1]))
        done.append(best)
    scales, zeros = zip(*done, strict=True)
    return torch.stack(scales, dim=1), torch.stack(zeros, dim=1)
