"""Training through the rounding: quantization-aware training (chapter 5).

Rounding is a staircase, flat nearly everywhere, so that no gradient comes through. The
straight-through estimator (arXiv:1308.3432) takes rounding for the identity on the way back, as
long as the number lies within the range of the format.

Training a whole model so takes text and time. What fits in a minute is one layer after another:
its weights, in steps of their scale, and the scales themselves are trained until the rounded
layer's output is nearest to the original's (BRECQ, arXiv:2102.05426, does so by blocks). The input
is what the rounded layers before it send, the aim what the original model has there, so that a
layer also takes back some of the error it is handed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infero import kernels
from infero import model as model_module
from infero.cache import contiguous
from infero.quant import affine, calibration
from infero.quant.codes import Codes
from infero.quant.fold import MATRICES

if TYPE_CHECKING:
    from infero.model import Model

STEPS = 16  # of a layer
RATE = 0.02  # steps of the scale that a weight moves in a training step at first; falls to 0
SCALE_RATE = 0.004  # the same for a scale, as a share of it


def straight_through(grad: Tensor, x: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The gradient of x, given that of its rounded form.

    grad, x: any one shape; scale, zero: shapes that broadcast with x. The gradient passes unchanged
    where x / scale + zero lies in 0 .. 2**bits - 1, ends included, and is 0 elsewhere.
    """
    place = x / scale + zero
    return grad * ((place >= 0) & (place <= 2**bits - 1))


class _Fake(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(x, scale, zero)
        ctx.bits = bits
        return affine.dequantize(affine.quantize(x, scale, zero, bits), scale, zero).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, scale, zero = ctx.saved_tensors
        return straight_through(grad, x, scale, zero, ctx.bits), None, None, None


def fake(x: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """x rounded to `bits` bits and back, with a gradient that goes straight through."""
    return _Fake.apply(x, scale, zero, bits)  # type: ignore[no-any-return, no-untyped-call]


# ---------------------------------------------------------------- a layer, and a model


def train_layer(model: Model, index: int, hidden: Tensor, target: Tensor | None = None, *,
                bits: int = 3, group: int | None = 64, symmetric: bool = True, steps: int = STEPS,
                seed: int = 0, ranges: Any = "mse") -> dict[str, Codes]:
    """The rounded matrices of layer `index`, trained to make of `hidden` what `target` is.

    hidden, target: [n, length, hidden]; target None: what the layer itself makes of `hidden`. Each
    step sees one of the n windows. Every token's squared error counts as a share of its target's
    squared length, so that one enormous token is one token. `model.layers[index]` stays as it is.
    """
    layer = model.layers[index]
    if target is None:
        target = calibration.advance(model, index, hidden)
    matrices = {name: _Trained(getattr(layer, name), bits, group, symmetric, ranges)
                for name in MATRICES}
    optimizer = torch.optim.Adam([
        {"params": [m.place for m in matrices.values()], "lr": RATE},
        {"params": [m.growth for m in matrices.values()], "lr": SCALE_RATE}], betas=(0.9, 0.95))
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(seed)).tolist()
    for step in range(steps):
        window = slice(order[step % len(order)], order[step % len(order)] + 1)
        with torch.enable_grad(), kernels.using(kernels="torch"):
            changed = dataclasses.replace(
                layer, **{name: m.weight() for name, m in matrices.items()})
            out = _through(model, index, changed, hidden[window])
            aim = target[window].float()
            loss = ((out.float() - aim).square().sum(-1) / aim.square().sum(-1)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        falling.step()
    return {name: m.codes() for name, m in matrices.items()}


def short_run(model: Model, ids: Tensor, bits: int = 3, group: int | None = 64,
              symmetric: bool = True, *, steps: int = STEPS, seed: int = 0,
              progress: Callable[[int, int], None] | None = None) -> Model:
    """A model whose layers' matrices were trained to be rounded, and are: numbers of `bits` bits.

    ids: [n, length] windows of text; `model` stays as it is. Layer by layer: seconds each on a CPU.
    progress(layers done, layers) is called after each.
    """
    out = dataclasses.replace(model, layers=list(model.layers))
    mine = theirs = calibration.embed(model, ids)
    for index, layer in enumerate(model.layers):
        theirs = calibration.advance(model, index, theirs)
        found = train_layer(model, index, mine, theirs, bits=bits, group=group,
                            symmetric=symmetric, steps=steps, seed=seed)
        rounded = {name: codes.dequantize().to(getattr(layer, name).dtype)
                   for name, codes in found.items()}
        out.layers[index] = dataclasses.replace(layer, **rounded)
        mine = calibration.advance(out, index, mine)
        if progress is not None:
            progress(index + 1, len(model.layers))
    return out


class _Trained:
    """One matrix in training: where each weight lies, in steps of its scale, and the scales."""

    def __init__(self, weight: Tensor, bits: int, group: int | None, symmetric: bool,
                 ranges: Any) -> None:
        first = affine.rtn(weight, bits, group, symmetric, ranges)
        self.first, self.dtype = first, weight.dtype
        self.group_of = torch.arange(weight.shape[1], device=weight.device) // first.group
        self.zero = first.zeros[:, self.group_of]
        self.one = torch.ones((), device=weight.device)
        self.place = (weight.float() / first.scales[:, self.group_of]).requires_grad_()
        self.growth = torch.zeros_like(first.scales).requires_grad_()  # of a scale's logarithm

    def weight(self) -> Tensor:
        """The rounded weight, with gradients for `place` and `growth`."""
        whole = fake(self.place, self.one, self.zero, self.first.bits)
        scales = self.first.scales * self.growth.exp()
        return (whole * scales[:, self.group_of]).to(self.dtype)

    def codes(self) -> Codes:
        """What training came to."""
        with torch.no_grad():
            values = affine.quantize(self.place, self.one, self.zero, self.first.bits)
            scales = self.first.scales * self.growth.exp()
        return dataclasses.replace(self.first, values=values, scales=scales)


def _through(model: Model, index: int, layer: Any, hidden: Tensor) -> Tensor:
    """`hidden` [n, length, hidden] through a layer in place of layer `index`, with gradients."""
    n, length, width = hidden.shape
    layers = list(model.layers)
    layers[index] = layer
    cache = contiguous.allocate(model.config, n, length, model.dtype, model.device)
    batch = contiguous.next_batch(cache, [0] * n, [length] * n)
    changed = dataclasses.replace(model, layers=layers)
    return model_module.block(changed, index, hidden.reshape(-1, width), batch,
                              cache).view_as(hidden)
