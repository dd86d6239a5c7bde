"""Matrix products on a CPU with weights laid out the way its vector units want them.

`F.linear` on [out, in] weights strides through memory; oneDNN can reorder a weight once into
blocks that a register tile reads in sequence. A packed copy is made when a weight is first used,
of float32 weights only when an engine asks (`kernels.prepare`), because they are large and mostly
there to be compared with. It lives as long as the weight itself, as an attribute of the tensor,
and costs the weight's bytes once more; a weight changed in place afterwards is packed again.
Chapter 2 says why decoding is bound by reading weights at all.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.cache import memory

SMALLEST = 1 << 16  # elements; below, a call costs more than the reading
ROWS_HINT = 64  # the row count oneDNN lays the copy out for: the best choice from 1 row to 128
KEEP_FREE = 2 << 30  # bytes of memory to be left over after a copy was made
DTYPES = (torch.float32, torch.bfloat16)


class Packed:
    """A weight in oneDNN's layout, and the version of the weight it was made from."""

    def __init__(self, weight: Tensor) -> None:
        self.version = weight._version
        self.tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied weight is a new weight: it is packed again when it is used."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()


def packable(weight: Tensor) -> bool:
    """Whether a packed copy of this weight would work, pay and fit."""
    return (weight.device.type == "cpu" and weight.dtype in DTYPES and weight.dim() == 2
            and weight.numel() >= SMALLEST and weight.is_contiguous()
            and not weight.requires_grad and not weight.is_inference()
            and torch.backends.mkldnn.is_available()
            and os.environ.get("INFERO_PACK", "1") != "0"
            and memory.free_memory_bytes(weight.device) > KEEP_FREE + weight.nbytes)


def made(weight: Tensor) -> Packed | Literal[False]:
    """A packed copy, or False where this CPU lacks the instructions that its dtype needs."""
    try:
        return Packed(weight)
    except RuntimeError:
        return False


def of(weight: Tensor, make: bool = True) -> Packed | None:
    """The packed copy of a weight as it is now; `make` allows the first one, where it pays."""
    packed: Packed | Literal[False] | None = getattr(weight, "packed", None)
    if packed is None and not make:
        return None
    if packed is None or (packed is not False and packed.version != weight._version):
        packed = made(weight) if packable(weight) else False
        weight.packed = packed  # type: ignore[attr-defined]
    return packed or None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [tokens, in] times weight [out, in] transposed, plus bias: [tokens, out]."""
    trained = x.requires_grad or weight.requires_grad
    if weight.is_cuda or trained:
        return F.linear(x, weight, bias)
    packed = of(weight, make=weight.dtype is not torch.float32)
    if packed is None:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, packed.tensor, bias, "none", [], "")
