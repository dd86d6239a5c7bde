"""GGUF matrices that run as they are stored: 4 and 8 bits in groups of 32, never dequantized.

A row is cut into blocks of 32 weights w, each with a scale d and, in one format, a least value m,
both in half precision:

    Q4_0   18 bytes   d, 16 bytes            w = (q - 8) * d
    Q4_1   20 bytes   d, m, 16 bytes         w = q * d + m
    Q8_0   34 bytes   d, 32 signed bytes     w = q * d

Byte j of a 4-bit block holds the weights j (lower nibble) and 16 + j. The numbers are moved into
the order that a kernel reads, and stacked where the engine stacks matrices; the scales become the
model's dtype. On a CPU that is `cpu_products.NibbleWeight`, for the embedding too, which then is
also the head of a model that ties them. On a GPU 4 bits are an `Int4Weight` with groups of 32, and
the embedding is dequantized. Chapter 5 opens the blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from infero.errors import ConfigError, LoadError
from infero.kernels import cpu_products, formats
from infero.loading import weights
from infero.loading.gguf_file import GgufFile

GROUP = 32
Q4_0, Q4_1, Q8_0 = 2, 3, 8
BLOCK_BYTES = {Q4_0: 18, Q4_1: 20, Q8_0: 34}
ROWS = 4096  # unpacked at a time
log = logging.getLogger("infero")


@dataclass
class Blocks:
    """Numbers of one matrix: w = (values - middle) * scales + offsets, the middle 8 or 128."""

    values: Tensor  # [out, in] uint8
    scales: Tensor  # [out, in / 32] float32
    offsets: Tensor  # [out, in / 32] float32
    bits: Literal[4, 8]


def unpack(raw: Tensor, kind: int) -> Blocks:
    """raw: [rows, blocks * block bytes] uint8, as in the file."""
    rows = raw.shape[0]
    blocks = raw.view(rows, -1, BLOCK_BYTES[kind])
    d = _halves(blocks[..., :2])
    if kind == Q8_0:
        return Blocks((blocks[..., 2:] ^ 128).reshape(rows, -1), d, torch.zeros_like(d), 8)
    packed = blocks[..., -16:]
    values = torch.cat((packed & 15, packed >> 4), -1).view(rows, -1)
    offsets = torch.zeros_like(d) if kind == Q4_0 else _halves(blocks[..., 2:4]) + 8 * d
    return Blocks(values, d, offsets, 4)


def _halves(pairs: Tensor) -> Tensor:
    """[rows, blocks, 2] bytes as half-precision numbers: [rows, blocks] float32."""
    return pairs.contiguous().view(torch.float16)[..., 0].float()


def matrix(file: GgufFile, parts: list[weights.Part], interleaved: bool) -> Blocks | None:
    """Some tensors of a file, one under the other; None where no kernel takes them as stored."""
    kinds = [file.tensors[part.name].type_code for part in parts]
    if any(kind not in BLOCK_BYTES for kind in kinds):
        return None
    if len({kind == Q8_0 for kind in kinds}) > 1:
        return None
    out, inputs = sum(part.shape[0] for part in parts), parts[0].shape[1]
    whole = Blocks(torch.empty((out, inputs), dtype=torch.uint8),
                   torch.empty((out, inputs // GROUP)), torch.empty((out, inputs // GROUP)),
                   8 if kinds[0] == Q8_0 else 4)
    at = 0
    for part, kind in zip(parts, kinds, strict=True):
        raw = torch.from_numpy(file.raw(part.name).copy())
        if part.heads and interleaved:
            raw = raw[weights.half_split(part.heads, part.shape[0] // part.heads)]
        for first in range(0, len(raw), ROWS):
            found = unpack(raw[first : first + ROWS], kind)
            rows = slice(at, at + len(found.values))
            whole.values[rows], whole.scales[rows] = found.values, found.scales
            whole.offsets[rows] = found.offsets
            at = rows.stop
    if not bool((whole.scales.isfinite() & whole.offsets.isfinite()).all()):
        raise LoadError(f"{file.path.name}: {parts[0].name} holds scales that are no numbers; "
                        "fetch the file again.")
    return whole


def packed(blocks: Blocks, dtype: torch.dtype, device: torch.device) -> Any:
    """Numbers in the format of the device's kernels; None where it has none for them."""
    if device.type == "cpu" and cpu_products.packs(blocks.values.shape, dtype):
        return cpu_products.grouped(blocks.values, blocks.scales, blocks.offsets, blocks.bits,
                                    dtype)
    return None if blocks.bits == 8 else int4(blocks, dtype).to(device)


def int4(blocks: Blocks, dtype: torch.dtype) -> formats.Int4Weight:
    """4-bit numbers in infero's own format."""
    values, scales, zeros = blocks.values, blocks.scales, None
    if bool((blocks.offsets != 0).any()):
        flat = scales == 0  # a block of one number: no scale can shift it by a zero point
        scales = torch.where(flat, blocks.offsets.abs(), scales)
        scales = torch.where(scales == 0, 1.0, scales)
        zeros = (8 - blocks.offsets / scales).to(dtype)
        values = torch.where(flat.repeat_interleave(GROUP, 1), 8, values)
    return formats.Int4Weight(formats.pack_int4(values), scales.to(dtype), zeros, GROUP,
                              values.shape)


def tensors(file: GgufFile, wanted: weights.Plan, read: weights.Reader, interleaved: bool,
            dtype: torch.dtype, device: torch.device,
            progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> dict[str, Any]:
    """Every tensor of the plan: matrices as they are stored, norms and biases in `dtype`."""
    found: dict[str, Any] = {}
    plain: weights.Plan = {}
    for target in progress(list(wanted)):
        parts = wanted[target]
        blocks = None
        outside = target in ("embedding", "head")
        if len(parts[0].shape) == 2 and (device.type == "cpu" or not outside):
            blocks = matrix(file, parts, interleaved)
        weight = None if blocks is None else packed(blocks, dtype, device)
        if weight is None:
            plain[target] = parts
        else:
            found[target] = weight
    matrices = [target for target in plain if len(wanted[target][0].shape) == 2]
    left = [target for target in matrices if target not in ("embedding", "head")]
    if left and len(left) == sum("." in t and len(p[0].shape) == 2 for t, p in wanted.items()):
        raise ConfigError(
            f"{file.path.name} keeps {wanted[left[0]][0].name} as GGUF type "
            f"{file.tensors[wanted[left[0]][0].name].type_code}. As they are stored, infero runs "
            "Q4_0 and Q4_1, and on a CPU Q8_0; load the file without keep_quantized (without "
            "quantization='stored').")
    if matrices:
        log.warning("%s: %d matrices (%s …) have no kernel as they are stored here and are kept "
                    "in %s.", file.path.name, len(matrices), matrices[0],
                    str(dtype).removeprefix("torch."))
    return found | weights.fill(plain, read, dtype, device)
