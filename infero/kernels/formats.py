"""Weight formats of one byte and of half a byte, and how an int4 weight is packed for its kernel.

A matrix product at batch 1 reads every weight once, so its time is the weight's bytes over the
card's bandwidth: halving the bytes halves the time, if unpacking costs less than reading.
Chapter 15 explains the layouts; chapters 4 and 5 say how to choose the numbers that go into them
(LLM.int8(), arXiv:2208.07339; GPTQ, arXiv:2210.17323; FP8, arXiv:2209.05433). `quantize` rounds to
nearest.

The int4 layout. A row is cut into blocks of 128 inputs. A block is 32 words of 16 bits, and word j
holds the inputs j, 32 + j, 64 + j and 96 + j of its block, lowest bits first:

    bits      15 .. 12   11 .. 8   7 .. 4   3 .. 0
    input      96 + j     64 + j   32 + j     j

Nibble i of the 32 words is then one contiguous slice of 32 inputs: a kernel that has the words in
registers multiplies nibble i of them all with a slice of x, and never moves a weight between
threads. Two neighbouring words are stored as one int32. Rows are padded with 8s (the zero of
symmetric weights) to whole blocks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.errors import ConfigError

if TYPE_CHECKING:
    from infero.model import Model

BLOCK = 128  # inputs a packed block
SLICE = 32  # inputs a nibble of its words holds: every scale group is a multiple of it
Kind = Literal["int8", "int4", "fp8", "w8a8"]
KINDS = ("int8", "int4", "fp8", "w8a8")
FP8_LARGEST = 448.0  # of float8_e4m3fn


class _Format:
    """What every format has in common with a weight tensor, so that a layer can hold either."""

    def tensors(self) -> list[Tensor]:
        """Every tensor of the weight."""
        return [v for v in vars(self).values() if isinstance(v, Tensor)]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.tensors())

    @property
    def device(self) -> torch.device:
        return self.tensors()[0].device

    @property
    def is_cuda(self) -> bool:
        return self.tensors()[0].is_cuda

    @property
    def requires_grad(self) -> bool:
        return False

    def dim(self) -> int:
        return 2

    def element_size(self) -> int:
        """Bytes of one number of the activations it serves."""
        return self.dtype.itemsize  # type: ignore[attr-defined,no-any-return]

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] times the weight transposed, where none of infero's kernels does it.

        A format that has a better way than unpacking first overrides this.
        """
        return F.linear(x, self.dequantize(), bias)

    def dequantize(self) -> Tensor:
        """The weight as its kernel sees it: [out, in] in `dtype`."""
        raise NotImplementedError

    def to(self, device: str | torch.device):  # type: ignore[no-untyped-def]
        """The same weight on another device."""
        moved = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved)  # type: ignore[type-var]


@dataclass(repr=False, eq=False)
class Int8Weight(_Format):
    """w[n, k] = values[n, k] * scales[n]."""

    values: Tensor  # [out, in] int8
    scales: Tensor  # [out] float32
    dtype: torch.dtype = torch.bfloat16  # of the activations it serves

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] times the weight transposed: packed for the CPU where x is on one."""
        if not x.is_cpu:
            return super().multiply(x, bias)
        from infero.kernels import cpu_products

        return cpu_products.linear(x, self, bias)

    def dequantize(self) -> Tensor:
        """The weight as its kernel sees it: [out, in] in `dtype`."""
        return (self.values.float() * self.scales[:, None]).to(self.dtype)


@dataclass(repr=False, eq=False)
class Fp8Weight(_Format):
    """w[n, k] = values[n, k] * scales[n]."""

    values: Tensor  # [out, in] float8_e4m3fn
    scales: Tensor  # [out] float32
    dtype: torch.dtype = torch.bfloat16

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def dequantize(self) -> Tensor:
        """The weight as its kernel sees it: [out, in] in `dtype`."""
        return (self.values.float() * self.scales[:, None]).to(self.dtype)


@dataclass(repr=False, eq=False)
class Int4Weight(_Format):
    """w[n, k] = (nibble[n, k] - zero) * scale, with scale and zero of n and k // group.

    `zeros` None means 8 everywhere, the symmetric case; a zero point need not be an integer.
    `group` is a multiple of 32, or at least `in` (one scale a row).
    """

    words: Tensor  # [out, ceil(in / 128) * 16] int32, see the module's docstring
    scales: Tensor  # [out, groups] in `dtype`
    zeros: Tensor | None  # [out, groups] in `dtype`
    group: int
    shape: torch.Size  # (out, in)

    def __post_init__(self) -> None:
        self.shape = torch.Size(self.shape)
        if self.group % SLICE and self.group < self.shape[1]:
            raise ConfigError(f"Groups of {self.group} inputs do not fall on the slices of "
                              f"{SLICE} that the kernels read: choose a multiple of {SLICE}.")

    @property
    def dtype(self) -> torch.dtype:
        return self.scales.dtype

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] times the weight transposed: packed for the CPU where x is on one."""
        if not x.is_cpu:
            return super().multiply(x, bias)
        from infero.kernels import cpu_products

        return cpu_products.linear(x, self, bias)

    def dequantize(self) -> Tensor:
        """The weight as its kernel sees it: [out, in] in `dtype`."""
        inputs = self.shape[1]
        values = unpack_int4(self.words, inputs).float()
        if self.scales.shape[1] == 1:
            scales, zeros = self.scales.float(), self.zeros
        else:
            each = torch.arange(inputs, device=self.device) // self.group
            scales = self.scales.float()[:, each]
            zeros = None if self.zeros is None else self.zeros[:, each]
        return ((values - (8.0 if zeros is None else zeros.float())) * scales).to(self.dtype)


Quantized: TypeAlias = Int8Weight | Int4Weight | Fp8Weight
Weight: TypeAlias = Tensor | Int8Weight | Int4Weight | Fp8Weight


# ---------------------------------------------------------------- packing


def pack_int4(values: Tensor) -> Tensor:
    """Pack numbers 0..15 in the layout of the module's docstring.

    values: [out, in] uint8. Returns [out, ceil(in / 128) * 16] int32.
    """
    out, inputs = values.shape
    blocks = -(-inputs // BLOCK)
    if blocks * BLOCK != inputs:
        values = torch.nn.functional.pad(values, (0, blocks * BLOCK - inputs), value=8)
    pairs = values.view(out, blocks, 4, SLICE // 2, 2).to(torch.uint8)
    low = pairs[:, :, 0] | pairs[:, :, 1] << 4  # [out, blocks, 16, 2]: bits 0..7 of each word
    high = pairs[:, :, 2] | pairs[:, :, 3] << 4
    words = torch.stack((low, high), dim=-1)  # little-endian: even word, then odd word
    return words.view(out, -1).view(torch.int32)


def unpack_int4(words: Tensor, inputs: int) -> Tensor:
    """The numbers 0..15 that `pack_int4` packed: [out, inputs] uint8."""
    out = words.shape[0]
    octets = words.contiguous().view(torch.uint8).view(out, -1, SLICE, 2)  # [.., word, octet]
    low, high = octets[..., 0], octets[..., 1]  # [out, blocks, 32]
    slices = torch.stack((low & 15, low >> 4, high & 15, high >> 4), dim=2)
    return slices.reshape(out, -1)[:, :inputs]


# ---------------------------------------------------------------- rounding to nearest


def quantize(weight: Tensor, kind: Kind, group: int = 128, *, symmetric: bool = True) -> Quantized:
    """Round a weight to the nearest numbers of a format.

    weight: [out, in]. "int8" and "fp8" have one scale a row; "int4" one for each `group` inputs of
    a row, and a zero point too unless `symmetric`. Rounding uses the scale as it is stored. "w8a8"
    is int8 for activations that are rounded too.
    """
    if weight.dim() != 2:
        raise ConfigError(f"A weight of shape {tuple(weight.shape)} is no matrix [out, in].")
    if kind == "int4":
        return _quantize_int4(weight, group, symmetric)
    if kind == "w8a8":
        from infero.kernels import formats_dynamic

        return formats_dynamic.quantize_w8a8(weight)  # type: ignore[return-value]
    if kind not in KINDS:
        raise ConfigError(f"There is no format {kind!r}; there are {', '.join(KINDS)}.")
    wide = weight.float()
    largest = wide.abs().amax(dim=1)
    limit = 127.0 if kind == "int8" else FP8_LARGEST
    scales = torch.where(largest > 0, largest / limit, 1.0)
    scaled = wide / scales[:, None]
    if kind == "int8":
        return Int8Weight(scaled.round_().clamp_(-127, 127).to(torch.int8), scales, weight.dtype)
    values = scaled.clamp_(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn)
    return Fp8Weight(values, scales, weight.dtype)


def _quantize_int4(weight: Tensor, group: int, symmetric: bool) -> Int4Weight:
    out, inputs = weight.shape
    group = min(group, inputs)
    groups = -(-inputs // group)
    wide = torch.nn.functional.pad(weight.float(), (0, groups * group - inputs))
    wide = wide.view(out, groups, group)
    if symmetric:
        scales = wide.abs().amax(dim=2) / 7.5  # 16 levels from -8 to 7; half a level is clipped
        zeros = None
    else:
        low, high = wide.amin(dim=2).clamp_(max=0), wide.amax(dim=2).clamp_(min=0)
        scales = (high - low) / 15
        zeros = low
    scales = torch.where(scales > 0, scales, 1.0).to(weight.dtype)
    scaled = wide / scales.float()[..., None]
    if zeros is not None:
        zeros = (-zeros / scales.float()).round_().clamp_(0, 15).to(weight.dtype)
    scaled += 8.0 if zeros is None else zeros.float()[..., None]
    values = scaled.round_().clamp_(0, 15).to(torch.uint8).view(out, -1)[:, :inputs]
    return Int4Weight(pack_int4(values), scales, zeros, group, weight.shape)


def group_of(model: Model) -> int:
    """The usual group of int4, 128 inputs, or a smaller one that divides every matrix's inputs."""
    widths = [weight.shape[1] for layer in model.layers[:1]
              for weight in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    return next((g for g in (128, 64) if all(width % g == 0 for width in widths)), 32)


def quantize_model(model: Model, kind: Kind, group: int | None = None, head: bool = True, *,
                   release: bool = False) -> Model:
    """A model whose matrices are in `kind`; norms, biases and the embedding stay as they are.

    group: inputs that share a scale in int4; by default `group_of(model)`.
    One layer is rounded at a time. With `release` each layer of `model` gives up its matrices as
    soon as they are rounded, so that a model of most of the card's memory fits; `model` itself is
    then of no more use. A head tied to the embedding becomes a matrix of its own.
    """
    group, layers = group or group_of(model), []
    for layer in model.layers:
        names = ("qkv", "o", "gate_up", "down")
        rounded = {name: quantize_rows(getattr(layer, name), kind, group) for name in names}
        layers.append(dataclasses.replace(layer, **rounded))  # type: ignore[arg-type]
        if release:
            for name in names:
                setattr(layer, name, torch.empty(0))
    new_head = quantize_rows(model.head, kind, group) if head else model.head
    if release and model.head is not model.embedding and head:
        model.head = torch.empty(0)
    return dataclasses.replace(model, layers=layers, head=new_head)  # type: ignore[arg-type]


def quantize_rows(weight: Tensor, kind: Kind, group: int = 128, rows: int = 16384) -> Quantized:
    """As `quantize`, some rows at a time: rounding in float32 takes several times the weight."""
    if not isinstance(weight, Tensor):
        raise ConfigError(f"The weights are quantized already ({type(weight).__name__}): leave the "
                          f"quantization {kind!r} away, or start from the model in full precision.")
    parts = [quantize(part, kind, group) for part in weight.split(rows)]
    fields = vars(parts[0])
    joined: dict[str, object] = {name: torch.cat([getattr(p, name) for p in parts])
                                 for name, v in fields.items() if isinstance(v, Tensor)}
    if "shape" in fields:
        joined["shape"] = weight.shape
    return dataclasses.replace(parts[0], **joined)  # type: ignore[arg-type]
