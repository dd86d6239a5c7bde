"""Quantized weights on a CPU, in the layout that PyTorch's int4 product reads.

PyTorch has one product that beats oneDNN's 16-bit ones at batch 1: 4-bit weights in blocks of 64
outputs (32 with AVX2), so that one register holds the same input of 16 outputs and a nibble is
looked up, scaled and added without leaving it. Each group of 32, 64, 128 or 256 inputs has a scale
and an offset,

    w[n, k] = (nibble[n, k] - 8) * scale[n, g] + offset[n, g]

which takes infero's int4 weights and GGUF's Q4_0 and Q4_1 without loss. Eight bits run through the
same product: a byte is 16 times its upper nibble plus its lower one, so an [out, in] matrix of
bytes is an [out, 2 * in] matrix of nibbles that multiplies (x, x). That is faster than PyTorch's
own int8 product, and it takes groups, which GGUF's Q8_0 needs.

Unpacking costs work for every row of x; above `FEW` rows some rows of the weight are unpacked at a
time, for a product of 16-bit numbers. Chapters 4, 5 and 15; the layout is the one of
`torch.ops.aten._convert_weight_to_int4pack_for_cpu`, found out by `layout`.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from infero.errors import ConfigError
from infero.kernels import formats

if TYPE_CHECKING:
    from infero.model import Model

OUTS = 64  # outputs are padded to whole blocks
GROUPS = (256, 128, 64, 32)  # inputs a scale may serve
FEW = {1: 88, 2: 26}  # planes of nibbles → rows of x up to which the product unpacks by itself
SLAB = 1024  # outputs unpacked at a time: they stay in the cache until they are multiplied


@dataclass(frozen=True)
class Layout:
    """How this CPU wants its nibbles: `block` outputs, input by input, two in a byte.

    halves: byte j of a block holds the outputs j and j + block / 2; else 2 j and 2 j + 1.
    """

    block: int
    halves: bool

    def pack(self, values: Tensor) -> Tensor:
        """values: [out, in] uint8 in 0..15 -> [out, in / 2] uint8."""
        out, inputs = values.shape
        columns = values.view(-1, self.block, inputs).transpose(1, 2)
        low, high = columns.chunk(2, -1) if self.halves else (columns[..., ::2], columns[..., 1::2])
        return (low | high << 4).reshape(out, inputs // 2)

    def blocks(self, packed: Tensor) -> Tensor:
        """The same bytes as [blocks, in, block / 2]."""
        return packed.view(packed.shape[0] // self.block, -1, self.block // 2)

    def join(self, low: Tensor, high: Tensor) -> Tensor:
        """Low and high nibbles [blocks, in, block / 2] in the order of the outputs."""
        if self.halves:
            return torch.cat((low, high), -1)
        return torch.stack((low, high), -1).flatten(2)


@functools.cache
def layout() -> Layout | None:
    """This CPU's layout, found by packing random numbers; None where it is none we know."""
    values = torch.randint(0, 16, (2 * OUTS, 32), generator=torch.Generator().manual_seed(0))
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1)
    except (RuntimeError, NotImplementedError, AttributeError):
        return None
    known = [Layout(block, halves) for block in (64, 32) for halves in (True, False)]
    return next((one for one in known if torch.equal(one.pack(values.to(torch.uint8)), packed)),
                None)


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has vectors for bfloat16; without, PyTorch's products crawl."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


@dataclass(repr=False, eq=False)
class NibbleWeight(formats._Format):
    """A quantized weight packed for the CPU it is on: 4 bits in one plane, 8 bits in two."""

    packed: Tensor  # [padded out, planes * in / 2] uint8
    scales: Tensor  # [planes * groups, padded out, 2] in `dtype`: scale and offset
    group: int  # inputs
    planes: int  # 1, or 2: the upper nibbles of all inputs, then the lower ones
    shape: torch.Size  # (out, in)

    def __post_init__(self) -> None:
        self.shape = torch.Size(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.scales.dtype

    def to(self, device: str | torch.device) -> NibbleWeight:
        """Itself: the layout is this CPU's. ConfigError for another device."""
        if torch.device(device).type != "cpu":
            raise ConfigError(f"These weights are packed for a CPU and cannot move to {device}; "
                              "load or quantize the model there.")
        return self

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] times the weight transposed."""
        few = FEW[self.planes] if x.dtype == torch.bfloat16 else 1  # the others are not vectorized
        if len(x) > few or x.dtype != self.dtype:
            y = self._unpacked(x)
        else:
            x = torch.cat((x, x), -1) if self.planes == 2 else x.contiguous()
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.packed, self.group, self.scales)
            if len(self.packed) != self.shape[0]:
                y = y[:, : self.shape[0]]
        return y if bias is None else y + bias

    def _unpacked(self, x: Tensor) -> Tensor:
        y = torch.empty((len(x), self.shape[0]), dtype=x.dtype)
        if x.dtype == torch.bfloat16 and not multiplies_bfloat16():
            x = x.float()
        for first in range(0, self.shape[0], SLAB):
            last = min(first + SLAB, self.shape[0])
            part = self.columns(first, -(-last // OUTS) * OUTS).to(x.dtype)
            y[:, first:last] = (x @ part)[:, : last - first]
        return y

    def columns(self, first: int, last: int) -> Tensor:
        """Outputs first..last (multiples of 64) as the columns of a matrix [in, last - first]."""
        there = layout()
        assert there is not None
        out, inputs, size = last - first, self.shape[1], there.block
        data = there.blocks(self.packed[first:last])
        if self.planes == 1:
            values = there.join(data & 15, data >> 4).to(self.dtype).sub_(8)
        else:
            top, rest = data[:, :inputs] ^ 136, data[:, inputs:]  # the sign bit of each byte turned
            low, high = top << 4 | rest & 15, top & 240 | rest >> 4
            values = there.join(low, high).view(torch.int8).to(self.dtype)
        pairs = self.scales[-(inputs // self.group):, first:last]  # [groups, out, 2]
        apart = pairs.permute(2, 0, 1).contiguous()  # vectors of scales, vectors of offsets
        shaped = apart.view(2, -1, 1, out // size, size).permute(0, 3, 1, 2, 4)
        values = values.view(out // size, -1, self.group, size)
        found = torch.empty((inputs, out), dtype=self.dtype)
        target = found.view(-1, self.group, out // size, size).permute(2, 0, 1, 3)
        if self.planes == 1:
            torch.addcmul(shaped[1], values, shaped[0], out=target)
        else:  # symmetric
            torch.mul(values, shaped[0], out=target)
        return found

    def dequantize(self) -> Tensor:
        """The weight as its kernel sees it: [out, in] in `dtype`."""
        return self.columns(0, len(self.packed)).t()[: self.shape[0]].contiguous()

    def rows(self, ids: Tensor) -> Tensor:
        """Some outputs' rows, [len(ids), in] in `dtype`: the weight as an embedding."""
        there = layout()
        assert there is not None
        size, inputs = there.block, self.shape[1]
        within = ids % size
        if there.halves:
            byte, upper = within % (size // 2), within >= size // 2
        else:
            byte, upper = within // 2, within % 2 == 1
        data = there.blocks(self.packed)[ids // size, :, byte]  # [rows, planes * in]
        nibbles = torch.where(upper[:, None], data >> 4, data & 15)
        scales = self.scales.transpose(0, 1)[ids].float().repeat_interleave(self.group, 1)
        numbers = torch.addcmul(scales[..., 1], nibbles.float() - 8, scales[..., 0])
        if self.planes == 2:
            numbers = numbers[:, :inputs] + numbers[:, inputs:]
        return numbers.to(self.dtype)


# ---------------------------------------------------------------- making one


def packs(shape: torch.Size, dtype: torch.dtype) -> bool:
    """Whether a weight [out, in] for activations of this dtype has a packed form here."""
    return (shape[1] % 32 == 0 and shape[0] > 0 and layout() is not None
            and dtype in (torch.bfloat16, torch.float32, torch.float16))


def grouped(values: Tensor, scales: Tensor, offsets: Tensor | None, bits: Literal[4, 8],
            dtype: torch.dtype) -> NibbleWeight:
    """Pack a weight w[n, k] = (values[n, k] - middle) * scales[n, g] + offsets[n, g].

    values: [out, in] uint8, `bits` of them used; the middle is 8 or 128. scales, offsets:
    [out, groups], a group of whole 32 inputs. in: a multiple of 32.
    """
    out, inputs = values.shape
    there = layout()
    if there is None or inputs % 32:
        raise ConfigError(f"A matrix [{out}, {inputs}] cannot be packed for this CPU; its inputs "
                          "must be a multiple of 32.")
    size = inputs // scales.shape[1]
    group = next(g for g in GROUPS if size % g == 0)
    scales = scales.float().repeat_interleave(size // group, 1)
    shifts = torch.zeros_like(scales)
    if offsets is not None:
        shifts = offsets.float().repeat_interleave(size // group, 1)
    if bits == 8:  # 16 * upper nibble - 128 from the first plane; the middle of the lower is 0
        scales, shifts = torch.cat((16 * scales, scales), 1), torch.cat((shifts, 8 * scales), 1)
    missing = -out % OUTS
    pairs = F.pad(torch.stack((scales.t(), shifts.t()), -1), (0, 0, 0, missing))
    packed = torch.empty((out + missing, inputs * bits // 8), dtype=torch.uint8)
    for first in range(0, out + missing, 4096):
        part = values[first : first + 4096]
        if bits == 8:
            part = torch.cat((part >> 4, part & 15), 1)
        if first + 4096 > out:
            part = F.pad(part, (0, 0, 0, min(4096, out + missing - first) - len(part)))
        packed[first : first + 4096] = there.pack(part)
    return NibbleWeight(packed, pairs.to(dtype).contiguous(), group, bits // 4,
                        torch.Size((out, inputs)))


def made(weight: formats.Quantized) -> NibbleWeight | None:
    """The packed form of a weight in one of infero's formats; None where it has none here."""
    if weight.device.type != "cpu" or not packs(weight.shape, weight.dtype):
        return None
    if isinstance(weight, formats.Int8Weight):
        return grouped(weight.values.view(torch.uint8) ^ 128, weight.scales[:, None], None, 8,
                       weight.dtype)
    if not isinstance(weight, formats.Int4Weight):
        return None
    inputs = weight.shape[1]
    values, scales = formats.unpack_int4(weight.words, inputs), weight.scales.float()
    zeros = None if weight.zeros is None else weight.zeros.float()
    size = inputs if scales.shape[1] == 1 else weight.group
    if inputs % size:  # a shorter last group: groups of 32 instead
        each = torch.arange(0, inputs, 32) // size
        scales, zeros = scales[:, each], None if zeros is None else zeros[:, each]
    return grouped(values, scales, None if zeros is None else (8 - zeros) * scales, 4,
                   weight.dtype)


def of(weight: formats.Quantized) -> NibbleWeight | None:
    """The packed copy of a weight: made at its first use, it lives as long as the weight."""
    kept: tuple[Any, NibbleWeight | None] | None = weight.__dict__.get("_packed")
    key = [(t.data_ptr(), t._version) for t in weight.tensors() if not t.is_inference()]
    if kept is None or kept[0] != key:
        kept = weight.__dict__["_packed"] = (key, made(weight))
    return kept[1]


def linear(x: Tensor, weight: formats.Quantized, bias: Tensor | None) -> Tensor:
    """x [tokens, in] times a weight of one of infero's formats, transposed, plus bias."""
    packed = None if x.requires_grad else of(weight)
    if packed is None:
        return F.linear(x, weight.dequantize(), bias)
    return packed.multiply(x, bias)


def adopt(weight: Any) -> Any:
    """The packed form in the place of a weight that nobody else needs; others as they are."""
    if isinstance(weight, (formats.Int8Weight, formats.Int4Weight)):
        return made(weight) or weight
    return weight


def adopt_model(model: Model) -> Model:
    """A model on this CPU whose int8 and int4 matrices are packed for it, and kept only so."""
    if model.device.type != "cpu":
        return model
    layers = [dataclasses.replace(layer, **{
        name: adopt(getattr(layer, name)) for name in ("qkv", "o", "gate_up", "down")})
        for layer in model.layers]
    return dataclasses.replace(model, layers=layers, head=adopt(model.head))
