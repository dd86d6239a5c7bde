"""Loads models that were quantized before: infero's own folders, and GPTQ and AWQ checkpoints.

Own folders (`infero quantize`) hold the engine's packed matrices and are used as they lie. The
common layouts of the Hugging Face hub are unpacked to whole numbers and packed again for infero's
kernels, and their query, key and value matrices (gate and up likewise) are stacked:

    GPTQ  qweight [in * bits / 32, out] int32, packed along the inputs, lowest bits first
          qzeros [groups, out * bits / 32], packed along the outputs; scales [groups, out]
          g_idx [in]: the group of each input
          The zero points are stored less one in the first version of the format, as they are in
          the second ("gptq_v2").
    AWQ   qweight [in, out / 8] int32, packed along the outputs in the order 0 2 4 6 1 3 5 7
          qzeros [groups, out / 8] in the same order; scales [groups, out]

A weight is (value - zero) * scale in both. Chapter 5; arXiv:2210.17323, arXiv:2306.00978.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infero.errors import ConfigError, LoadError
from infero.kernels import formats
from infero.kernels.ordered import OrderedWeight
from infero.loading import config as configs
from infero.loading import vocabulary, weights
from infero.loading.safetensors_file import PACKED, SafetensorsFiles, find_files
from infero.model import Model, ModelConfig
from infero.quant import codes, folder, manifest
from infero.quant.codes import Codes

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble i of a word belongs to output 8 * word + AWQ_ORDER[i]
PARTS = ("qweight", "qzeros", "scales", "g_idx")
_SIZES = {"gptq": (2, 3, 4, 8), "awq": (4,)}  # bits
log = logging.getLogger("infero")


# ---------------------------------------------------------------- infero's own folders


def is_own(path: Path) -> bool:
    """Whether a path is a folder that `infero quantize` made, or began to make."""
    return any((path / name).exists() for name in (manifest.NAME, manifest.layer_file(0)))


def own(path: Path, dtype: torch.dtype, device: torch.device) -> Model:
    """The model of a folder that `infero quantize` made."""
    if not (path / manifest.NAME).exists():
        raise LoadError(f"{path} was made by `infero quantize`, but its {manifest.NAME} is "
                        "missing; copy the whole folder again, or quantize the model again.")
    listed = manifest.read(path)
    if not listed.complete:
        raise LoadError(f"{path} is unfinished ({len(listed.files)} files are there): run the same "
                        "`infero quantize` command again, it goes on where it stopped.")
    try:
        config = folder.model_config(listed.model)
    except (KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"{path / manifest.NAME}: the model's shape is damaged ({error}); quantize "
                        "the model again.") from error
    found: dict[str, Any] = {}
    for name in listed.files:
        if name.endswith(".safetensors"):
            found |= manifest.read_weights(path, listed, name, dtype, device)
        else:
            manifest.check_file(path, listed, name)
    inv_freq = found.pop("inv_freq", None)
    _check_targets(path, config, found)
    model = weights.build(config, found, inv_freq)
    model.tokenizer = vocabulary.from_folder(path, config.eos_token_ids)
    if model.tokenizer is not None and listed.tokenizer is not None:
        model.tokenizer.eos_ids = tuple(listed.tokenizer["eos_ids"])
        model.tokenizer.bos_id = listed.tokenizer["bos_id"]
    return model


def _check_targets(path: Path, config: ModelConfig, found: Mapping[str, Any]) -> None:
    """Every tensor of the engine is there, in its shape, and nothing else is."""
    wanted = {target: (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
              for target, parts in weights.plan(config, weights.HF_NAMES)}
    wanted["head"] = (config.vocab_size, config.hidden_size)
    again = "its files do not belong together: quantize the model again."
    for target, shape in wanted.items():
        if target not in found:
            if target == "head" and config.tie_embeddings:
                continue
            raise LoadError(f"{path} lacks {target}, which a model of {config.num_layers} layers "
                            f"needs; {again}")
        if tuple(found[target].shape) != shape:
            raise LoadError(f"{path}: {target} has shape {list(found[target].shape)}, the model's "
                            f"is {list(shape)}; {again}")
    if extra := sorted(set(found) - set(wanted)):
        raise LoadError(f"{path} holds {extra[0]}, which the model has no place for; {again}")


# ---------------------------------------------------------------- GPTQ and AWQ checkpoints


@dataclass(frozen=True)
class Layout:
    """What a checkpoint's quantization_config says."""

    method: str  # "gptq" | "awq"
    bits: int
    group: int | None  # inputs; None: one scale a row
    less_one: bool = False  # zero points are stored less one


def settings_of(path: Path, raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The quantization settings of a checkpoint's folder, or None where it has none."""
    found = raw.get("quantization_config")
    beside = (path if path.is_dir() else path.parent) / "quantize_config.json"
    if found is None and beside.exists():  # where older programs kept it
        found = {"quant_method": "gptq"} | vocabulary.read_json(beside)
    return found


def layout_of(settings: Any) -> Layout:
    """The layout that quantization_config describes; ConfigError for others than GPTQ and AWQ."""
    fields = configs._Fields(settings if isinstance(settings, Mapping) else {},
                             "config.json, quantization_config")
    method = fields.get("quant_method")
    if method not in _SIZES:
        raise ConfigError(f"The checkpoint is quantized by {method or settings!r}; infero reads "
                          "'gptq', 'awq', its own folders and GGUF. Choose one of these, or the "
                          "model in full precision.")
    bits = fields.count("bits", fields.get("w_bit", 4))
    if bits not in _SIZES[method]:
        raise fields.bad("bits", bits, f"one of {list(_SIZES[method])} for {method}")
    size = fields.get("group_size", fields.get("q_group_size", 128))
    if isinstance(size, bool) or not isinstance(size, int) or not (size == -1 or size > 0):
        raise fields.bad("group_size", size, "a number of inputs, or -1 for one scale a row")
    group = None if size == -1 else size
    if method == "awq":
        version = str(fields.get("version", "gemm")).lower()
        if version != "gemm":
            raise fields.bad("version", version, "'gemm', the one order of nibbles infero reads")
        return Layout(method, bits, group)
    form = fields.get("checkpoint_format", "gptq")
    if form not in ("gptq", "gptq_v2") or fields.flag("is_marlin_format", False):
        raise fields.bad("checkpoint_format", form, "'gptq' or 'gptq_v2'")
    return Layout(method, bits, group, less_one=form == "gptq")


def hugging_face(path: Path, raw: Mapping[str, Any], settings: Any, dtype: torch.dtype,
                 device: torch.device, progress: Any = iter) -> Model:
    """The model of a GPTQ or AWQ checkpoint, its matrices packed for infero's kernels."""
    place = path if path.is_dir() else path.parent
    layout = layout_of(settings)
    generation = vocabulary.read_json(place / "generation_config.json", {})
    config = configs.from_hf({**raw, "quantization_config": None}, generation)
    files = SafetensorsFiles(find_files(path), PACKED)
    packed, shapes = _as_weights(files, layout, str(path))
    _drop_empty_biases(files, config, packed, shapes)
    wanted = weights.checked_plan(config, weights.HF_NAMES, shapes, str(path))
    tokenizer = vocabulary.from_folder(place, config.eos_token_ids)
    if tokenizer is not None:
        config = replace(config, eos_token_ids=tokenizer.eos_ids)
    rounded = {target: parts for target, parts in wanted.items()
               if any(part.name in packed for part in parts)}
    plain = {target: parts for target, parts in wanted.items() if target not in rounded}
    found: dict[str, Any] = {}
    for target in progress(list(rounded)):
        found[target] = _stacked(files, layout, rounded[target], packed, dtype).to(device)
    found |= weights.fill(plain, lambda name, _: files.read(name), dtype, device)
    model = weights.build(config, found)
    model.tokenizer = tokenizer
    return model


def _as_weights(files: SafetensorsFiles, layout: Layout, where: str
                ) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Packed matrices as if they were whole: ("….weight" → "…", shapes with [out, in] for each)."""
    shapes, packed = dict(files.shapes), dict[str, str]()
    per_word = 32 / layout.bits
    for name in files.shapes:
        base, _, kind = name.rpartition(".")
        if kind != "qweight":
            continue
        rows, columns = files.shapes[name]
        out, inputs = ((columns, round(rows * per_word)) if layout.method == "gptq"
                       else (round(columns * per_word), rows))
        groups = 1 if layout.group is None else -(-inputs // layout.group)
        wanted: dict[str, tuple[int, ...]] = {
            "qzeros": (groups, math.ceil(out / per_word)), "scales": (groups, out)}
        if f"{base}.g_idx" in shapes:
            wanted["g_idx"] = (inputs,)
        for part, shape in wanted.items():
            given = files.shapes.get(f"{base}.{part}")
            if given != shape:
                raise LoadError(
                    f"{where}: tensor {base}.{part!s} has shape {given and list(given)}, but "
                    f"{layout.bits} bits in groups of {layout.group or 'all inputs'} make it "
                    f"{list(shape)}; the configuration and the weights do not belong together.")
        for part in PARTS:
            shapes.pop(f"{base}.{part}", None)
        packed[f"{base}.weight"], shapes[f"{base}.weight"] = base, (out, inputs)
    if not packed:
        raise LoadError(f"{where} says that it is quantized by {layout.method}, but holds no "
                        "tensor named ….qweight; fetch the model again.")
    return packed, shapes


def _drop_empty_biases(files: SafetensorsFiles, config: ModelConfig, packed: Mapping[str, str],
                       shapes: dict[str, tuple[int, ...]]) -> None:
    """Some programs write a bias of zeros beside every packed matrix: leave those away."""
    planned = {part.name for _, parts in weights.plan(config, weights.HF_NAMES) for part in parts}
    for base in packed.values():
        name = f"{base}.bias"
        if name in shapes and name not in planned and not bool(files.tensor(name).any()):
            del shapes[name]


def _stacked(files: SafetensorsFiles, layout: Layout, parts: list[weights.Part],
             packed: Mapping[str, str], dtype: torch.dtype) -> Any:
    """One matrix of the engine from the checkpoint's: packed, or in `dtype` where that fails."""
    read: list[tuple[Codes, Tensor | None]] = [
        unpacked(files, layout, packed[part.name]) for part in parts if part.name in packed]
    orders = [order for _, order in read]
    same = len(read) == len(parts) and all(_equal(order, orders[0]) for order in orders)
    first = read[0][0]
    whole = Codes(torch.cat([c.values for c, _ in read]), torch.cat([c.scales for c, _ in read]),
                  torch.cat([c.zeros for c, _ in read]), first.bits, first.group)
    if same and _fits(whole):
        if orders[0] is None:
            return codes.pack(whole, dtype)
        whole = replace(whole, values=whole.values[:, orders[0]])
        return OrderedWeight(codes.pack(whole, dtype), orders[0])  # type: ignore[arg-type]
    log.warning("%s: no kernel multiplies %d bits in groups of %d like this; the weight is kept in "
                "%s.", parts[0].name, first.bits, first.group, str(dtype).removeprefix("torch."))
    whole_parts, left = [], iter(read)
    for part in parts:
        if part.name in packed:
            whole_parts.append(_whole(*next(left)).to(dtype))
        else:
            whole_parts.append(files.tensor(part.name).to(dtype))
    return torch.cat(whole_parts)


def _whole(numbers: Codes, order: Tensor | None) -> Tensor:
    """The weight itself: [out, in] float32."""
    if order is None:
        return numbers.dequantize()
    found = torch.empty(numbers.values.shape)
    found[:, order] = replace(numbers, values=numbers.values[:, order]).dequantize()
    return found


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _fits(whole: Codes) -> bool:
    """Whether the kernels have a layout for these numbers."""
    if whole.bits == 8:
        return whole.scales.shape[1] == 1 and whole.symmetric
    return whole.group % formats.SLICE == 0 or whole.group >= whole.values.shape[1]


def unpacked(files: SafetensorsFiles, layout: Layout, base: str) -> tuple[Codes, Tensor | None]:
    """(the whole numbers of one matrix, order of its inputs by group or None if they are in order).

    With an order, the numbers stay where they are and `_whole` gives the weight.
    """
    words, zero_words = files.tensor(f"{base}.qweight"), files.tensor(f"{base}.qzeros")
    scales = files.tensor(f"{base}.scales").float().t().contiguous()
    out, inputs = scales.shape[0], 0
    if layout.method == "awq":
        values, zeros = (_awq(t) for t in (words, zero_words))
        inputs = values.shape[1]
    else:
        values = unpack(words, layout.bits).t().contiguous()
        zeros, inputs = unpack(zero_words.t(), layout.bits)[:out], values.shape[1]
    wide = zeros.float()
    if layout.less_one:
        wide = torch.remainder(wide + 1, 2**layout.bits)
    group = inputs if layout.group is None else min(layout.group, inputs)
    order = None
    if f"{base}.g_idx" in files.shapes:
        order = _order(files.tensor(f"{base}.g_idx").long(), group, base)
    return Codes(values, scales, wide.contiguous(), layout.bits, group), order


def _order(groups: Tensor, group: int, base: str) -> Tensor | None:
    """The inputs sorted by group; None where they are sorted already. groups: [in] int64."""
    wanted = torch.arange(len(groups)) // group
    if torch.equal(groups, wanted):
        return None
    order = torch.argsort(groups, stable=True)
    if not torch.equal(groups[order], wanted):
        counts = torch.bincount(groups.clamp(min=0)).tolist()
        raise LoadError(f"{base}.g_idx puts {min(counts)} to {max(counts)} inputs into a group, "
                        f"the configuration says {group}; the checkpoint is damaged: fetch it "
                        "again.")
    return order


def unpack(words: Tensor, bits: int) -> Tensor:
    """The numbers packed along the first dimension, lowest bits first, also across words.

    words: [rows, n] int32. Returns [rows * 32 / bits, n] uint8.
    """
    period = bits // math.gcd(bits, 32)  # words after which a number begins at bit 0 again
    blocks, mask = words.reshape(-1, period, words.shape[1]), (1 << bits) - 1
    found = []
    for at in range(0, 32 * period, bits):
        word, shift = divmod(at, 32)
        value = blocks[:, word] >> shift  # copies the sign: masked away below
        if shift + bits > 32:
            low = (1 << (32 - shift)) - 1
            value = (value & low) | (blocks[:, word + 1] << (32 - shift))
        found.append((value & mask).to(torch.uint8))
    return torch.stack(found, dim=1).reshape(-1, words.shape[1])


def _awq(words: Tensor) -> Tensor:
    """words: [n, out / 8] int32 in AWQ's order. Returns [out, n] uint8."""
    rows = unpack(words.t(), 4).view(-1, 8, words.shape[0])
    found = torch.empty_like(rows)
    found[:, list(AWQ_ORDER)] = rows
    return found.reshape(-1, words.shape[0])
