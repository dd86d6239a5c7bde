"""The operations of the forward pass, and the one place where their implementation is chosen.

`infero/model.py` defines each operation in its plainest form, as chapter 1 explains it. The model
calls the function of the same name here, and the first of these that exists runs: the learner's
function, installed in the place of the plain one; a Triton kernel (chapters 13 to 15); the fastest
way to say it in PyTorch, in `torch_ops.py` and `paged_attention.py`. Every fast version is tested
against the plain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from infero import model
from infero.kernels import packed, paged_attention, torch_ops

if TYPE_CHECKING:
    from infero.model import Batch, Model

_PLAIN = vars(model)  # the model module's names, read at call time


def replaced(name: str) -> bool:
    """Whether something else stands in the place of the plain `infero.model.<name>`.

    A function keeps the globals of the module that defined it, whatever name it goes by.
    """
    return getattr(_PLAIN[name], "__globals__", None) is not _PLAIN


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x: [tokens, hidden] (or any leading shape) over its root mean square, times weight."""
    if replaced("rms_norm"):
        return model.rms_norm(x, weight, eps)
    return torch_ops.rms_norm(x, weight, eps)


def rope(x: Tensor, batch: Batch, inv_freq: Tensor) -> Tensor:
    """x: [tokens, heads, dim], queries and keys together, rotated to their positions."""
    if replaced("rope"):
        return model.rope(x, batch.positions, inv_freq)
    key = ("rotation", id(inv_freq), x.dtype)
    rotation = batch.memo.get(key)
    if rotation is None:
        rotation = torch_ops.rotation(batch.positions, inv_freq, x.dtype)
        batch.memo[key] = rotation
    return torch_ops.rotate(x, *rotation)


def attention(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float,
              window: int | None) -> Tensor:
    """Attention of a ragged batch over the cache: q [tokens, heads, dim]; k, v of one layer."""
    if replaced("attention"):
        return model.attend(q, k, v, batch, scale, window)
    return paged_attention.attend(q, k, v, batch, scale, window)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up: [tokens, intermediate]."""
    if replaced("swiglu"):
        return model.swiglu(gate, up)
    return torch_ops.swiglu(gate, up)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [tokens, in] times weight [out, in] transposed, plus bias."""
    return packed.linear(x, weight, bias)


def prepare(model: Model) -> int:
    """Make now what the first step would make, and say how many bytes it takes.

    Call it before the KV cache takes what memory is left. On a CPU these are packed weights.
    """
    weights = [model.head]
    for layer in model.layers:
        weights += [layer.qkv, layer.o, layer.gate_up, layer.down]
    return sum(weight.nbytes for weight in weights if packed.of(weight) is not None)
