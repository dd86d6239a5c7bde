"""AWQ: scale up the channels that matter before rounding to nearest (arXiv:2306.00978). Chapter 5.

A few input channels carry most of a matrix's output, and the activations show which. Multiplying
such a channel's column by s > 1, and dividing the input by s, divides the column's rounding error
by s, for as long as the column is not the one that sets its group's scale. The factors are a power
of the mean size of each input; the exponent, between 0 (no scaling) and 1, is searched by the error
of the output. Then each group's range is clipped where that lowers the error too. Nothing is
trained, and the factors are folded into the operation before (`fold.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.model import Layer, ModelConfig
from infero.quant import affine, fold
from infero.quant.calibration import Stats

SHRINK = 0.5  # the narrowest range that clipping tries, as a share of the whole
ROWS = 4096  # rows of a weight clipped at a time: bounds the memory


def search(weight: Tensor, rows: Tensor, mean_abs: Tensor, bits: int, group: int | None,
           symmetric: bool = True, grid: int = 20) -> Tensor:
    """The factors of the input channels whose rounded weight changes the output least.

    weight: [out, in]; rows: [n, in], inputs to judge by; mean_abs: [in], mean size of each input
    (never below 1e-4 here). Candidate i of `grid` is mean_abs ** (i / grid), divided by the root of
    its largest times its smallest factor. Its weight is weight * factors, rounded to nearest
    (`affine.rtn`) and divided by the factors again; the candidate with the least sum of squared
    changes of rows @ weight^T wins. Returns [in] float32.
    """
    best, least = torch.ones_like(mean_abs), float("inf")
    for i in range(grid):
        factors = mean_abs.float().clamp(min=1e-4) ** (i / grid)
        factors = factors / (factors.max() * factors.min()).sqrt()
        rounded = affine.rtn(weight * factors, bits, group, symmetric).dequantize() / factors
        loss = float((rows @ (rounded - weight).t()).square().sum())
        if loss < least:
            best, least = factors, loss
    return best


def clip(weight: Tensor, rows: Tensor, bits: int, group: int | None, symmetric: bool = True,
         grid: int = 10) -> Tensor:
    """The weight with every group's range narrowed to where its rounding changes the output least.

    weight: [out, in]; rows: [n, in]. Of `grid` shares of the range, from all of it down to SHRINK,
    each group of each row takes the one with the least squared change of that group's part of the
    output. Rounding the result to nearest over its own range is then the best found. Returns
    [out, in] in weight's dtype.
    """
    inputs = weight.shape[1]
    group = inputs if group is None else min(group, inputs)
    done = []
    for first in range(0, inputs, group):
        x = rows[:, first : first + group].float()
        products = x.t() @ x / len(x)  # [group, group]: a change d costs d^T products d
        part = weight[:, first : first + group]
        done.append(torch.cat([_clip(w.float(), products, bits, symmetric, grid)
                               for w in part.split(ROWS)]))
    return torch.cat(done, dim=1).to(weight.dtype)


def apply(config: ModelConfig, layer: Layer, stats: dict[str, Stats], bits: int,
          group: int | None, symmetric: bool = True, *, grid: int = 20,
          clipping: bool = True) -> dict[str, Tensor]:
    """Scale and clip a layer's matrices in place, ready to be rounded to nearest.

    stats: of the layer as it comes (`calibration.layer_stats`), with Hessians if possible: a few
    hundred sampled rows easily miss the one token in a text whose input is enormous. The matrices
    are replaced, not written into. Returns the factors of every matrix, [in] each.
    """
    found, rows = {}, {name: judges(stats[name]) for name in fold.MATRICES}
    for name in fold.MATRICES:
        mean_abs = fold.free_factors(config, name, stats[name].mean_abs.clamp(min=1e-4))
        found[name] = search(getattr(layer, name).float(), rows[name], mean_abs, bits, group,
                             symmetric, grid)
    for name, factors in found.items():  # after the search: folding one changes the one before it
        fold.scale_inputs(config, layer, name, fold.free_factors(config, name, factors))
    for name in fold.MATRICES if clipping else ():
        weight = getattr(layer, name)
        setattr(layer, name, clip(weight, rows[name] / found[name], bits, group, symmetric))
    return found


def judges(stats: Stats) -> Tensor:
    """Inputs [n, in] to judge a change of the weight by.

    With a Hessian these are [in, in] rows R with R^T R = H: their squared outputs add up to the
    mean over every token of the text. Without, the sampled inputs.
    """
    if stats.hessian is None:
        return stats.rows
    wide = stats.hessian.double()
    level = float(wide.diagonal().mean()) or 1.0
    eye = torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    for part in (1e-7, 1e-5, 1e-3):
        root, failed = torch.linalg.cholesky_ex(wide + part * level * eye, upper=True)
        if not bool(failed):
            return root.float()
    return stats.rows


def _clip(weight: Tensor, products: Tensor, bits: int, symmetric: bool, grid: int) -> Tensor:
    """One group of some rows: weight [rows, group], products [group, group]."""
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    best, least = weight, torch.full_like(low, torch.inf)
    for i in range(grid):
        share = 1 - i * (1 - SHRINK) / grid
        clipped = weight.clamp(low * share, high * share)
        change = affine.rtn(clipped, bits, None, symmetric).dequantize() - weight
        loss = ((change @ products) * change).sum(1, keepdim=True)
        best = torch.where(loss < least, clipped, best)
        least = torch.minimum(loss, least)
    return best
