"""2:4 sparsity as a weight format: half of the values, and two bits for where each belongs.

Chapter 6 explains it. In every four neighbours of a row at most two are not zero. Stored are two
values and their two positions (0 to 3) in the group: a nibble, the first position in its lower
two bits. Two groups share a byte, the left one in the lower nibble. In bf16 a group of four takes
2 * 16 + 4 = 36 bits where it took 64.

`SparseWeight` is that layout, readable anywhere. On a GPU with compute capability 8.0 or more
`NativeSparseWeight` keeps the arrangement of the sparse tensor cores, which take the nibbles as
they are and fetch from x only what is multiplied (arXiv:2104.08378).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.compress import magnitude
from infero.errors import ConfigError
from infero.kernels import formats
from infero.model import Model

MATRICES = ("qkv", "o", "gate_up", "down")
BACKENDS = ("cusparselt", "cutlass")


def compress(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Split a 2:4 sparse weight into its values and their positions.

    weight: [out, in] with at most two values other than 0 in every four neighbours of a row; 8
    divides `in`. Returns values [out, in / 2], those two of every group from left to right (a
    group with fewer keeps a 0 for each that is missing, at any free position), and positions
    [out, in / 8] uint8: a group's nibble is first + 4 * second, with 0 <= first < second <= 3, and
    a byte holds the left group's nibble + 16 * the right one's.
    """
    groups = weight.reshape(weight.shape[0], -1, 4)
    order = (groups == 0).to(torch.uint8).argsort(dim=2, stable=True)  # what is not 0 comes first
    where = order[:, :, :2].sort(dim=2).values  # [out, in / 4, 2]
    values = groups.gather(2, where).reshape(weight.shape[0], -1)
    nibbles = where[:, :, 0] + 4 * where[:, :, 1]
    return values, (nibbles[:, ::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)


def expand(values: Tensor, positions: Tensor) -> Tensor:
    """The weight that `compress` split: [out, in]."""
    out = values.shape[0]
    nibbles = torch.stack((positions & 15, positions >> 4), dim=2).view(out, -1)
    where = torch.stack((nibbles & 3, nibbles >> 2), dim=2).long()  # [out, in / 4, 2]
    groups = torch.zeros(*where.shape[:2], 4, dtype=values.dtype, device=values.device)
    return groups.scatter_(2, where, values.view(out, -1, 2)).view(out, -1)


@dataclass(repr=False, eq=False)
class SparseWeight(formats._Format):
    """A 2:4 sparse weight in the layout of the module's docstring."""

    values: Tensor  # [out, in / 2]
    positions: Tensor  # [out, in / 8] uint8

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.values.shape[0], 2 * self.values.shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def dequantize(self) -> Tensor:
        """The weight with its zeros: [out, in]."""
        return expand(self.values, self.positions)


class NativeSparseWeight(formats._Format):
    """A 2:4 sparse weight as PyTorch's semi-structured kernels hold it, on a GPU."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix  # SparseSemiStructuredTensor [out, in]

    @property
    def shape(self) -> torch.Size:
        return self.matrix.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    def tensors(self) -> list[Tensor]:
        """What is stored: values and positions, in one tensor or in two."""
        parts = (getattr(self.matrix, name, None) for name in ("packed", "meta"))
        return [part for part in parts if part is not None]

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] times the weight transposed, on the sparse tensor cores."""
        return F.linear(x, self.matrix, bias)

    def dequantize(self) -> Tensor:
        """The weight with its zeros: [out, in]."""
        return self.matrix.to_dense()  # type: ignore[no-any-return]

    def to(self, device: str | torch.device) -> NativeSparseWeight | SparseWeight:
        """The same weight on another device; away from GPUs as a `SparseWeight`."""
        if torch.device(device).type == "cuda":
            return self
        return SparseWeight(*compress(self.dequantize().to(device)))


def is_2_of_4(weight: Tensor) -> bool:
    """Whether every four neighbours of a row hold at most two values other than 0."""
    if weight.dim() != 2 or weight.shape[1] % 8:
        return False
    return int((weight.reshape(-1, 4) != 0).sum(dim=1).max()) <= 2


def native(weight: Tensor, backend: str | None = None) -> NativeSparseWeight | None:
    """The weight for the GPU's sparse tensor cores, or None where there are none for it.

    backend: "cusparselt" or "cutlass"; None tries both in this order.
    """
    fits = weight.shape[0] % 32 == 0 and weight.shape[1] % 64 == 0
    if not (weight.is_cuda and fits and weight.dtype in (torch.float16, torch.bfloat16)
            and torch.cuda.get_device_capability(weight.device) >= (8, 0)):
        return None
    kinds = {"cusparselt": torch.sparse.SparseSemiStructuredTensorCUSPARSELT,
             "cutlass": torch.sparse.SparseSemiStructuredTensorCUTLASS}
    for name in BACKENDS if backend is None else (backend,):
        with warnings.catch_warnings():  # the interface is called a prototype at every start
            warnings.simplefilter("ignore")
            try:
                made = NativeSparseWeight(kinds[name].from_dense(weight.contiguous()))
                made.multiply(weight.new_zeros(1, weight.shape[1]))
            except (RuntimeError, NotImplementedError):  # this build or card lacks the backend
                continue
            return made
    return None


def sparse(weight: Tensor) -> SparseWeight | NativeSparseWeight:
    """A 2:4 sparse weight in the best format that its device has."""
    if not is_2_of_4(weight):
        raise ConfigError(f"The weight of shape {tuple(weight.shape)} is not 2:4 sparse with rows "
                          "of whole bytes (a multiple of 8): prune it with pattern=(2, 4) first.")
    return native(weight) or SparseWeight(*compress(weight))


def sparsify(model: Model) -> Model:
    """The model with every 2:4 sparse matrix stored as such; the others stay as they are.

    Prune it first: `pruning.prune(model, "wanda", pattern=(2, 4), ids=ids)`.
    """
    layers = []
    for layer in model.layers:
        found = {name: sparse(weight) for name in MATRICES
                 if isinstance(weight := getattr(layer, name), Tensor) and is_2_of_4(weight)}
        layers.append(replace(layer, **found))  # type: ignore[arg-type]
    return replace(model, layers=layers)


def prune_2_of_4(weight: Tensor) -> Tensor:
    """The two largest of every four stay: magnitude pruning, for a first look."""
    return magnitude.prune(weight, pattern=(2, 4))
