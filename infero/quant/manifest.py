"""The folder that a quantized model is kept in, and how it survives a crash. Chapters 4 and 5.

    infero.json                what the folder holds, how it was made, a hash of every file
    layer-000.safetensors …    a file a layer: its packed matrices, norms and biases
    outer.safetensors          embedding, last norm, head, rotary frequencies
    config.json, tokenizer.json, tokenizer_config.json

While it is written the folder is called FOLDER.partial, and infero.json is its journal: a file
counts once it is listed there, and every file is written under another name and then renamed. The
last two steps set `complete` and rename the folder. Whatever moment the power fails at, either
FOLDER is whole or there is none, and what is listed can be used to go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from infero.errors import InferoError, LoadError
from infero.kernels import formats
from infero.loading import cache
from infero.loading.safetensors_file import PACKED, SafetensorsFiles
from infero.loading.vocabulary import read_json

NAME = "infero.json"
FORMAT = 1
OUTER = "outer.safetensors"
PARTIAL = ".partial"
#: Modules that define formats of weights.
HOMES = ("infero.kernels.formats", "infero.kernels.formats_dynamic", "infero.kernels.ordered")
#: Tensors of a format that have the activations' dtype; all others keep theirs.
SERVED = {"Int4Weight": ("scales", "zeros"), "OutlierWeight": ("kept",)}
_HALF_RANGE = (2.0**-10, 65504.0)  # largest magnitude for which float16 is exact enough


@dataclass
class Manifest:
    """What infero.json says. `request` is all that the numbers depend on: equal means equal."""

    request: dict[str, Any]  # method, settings, base model, calibration text, dtype, version
    model: dict[str, Any]  # ModelConfig
    tokenizer: dict[str, Any] | None = None
    decided: dict[str, Any] | None = None  # by a method that decides on the whole model first
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    sizes: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    complete: bool = False


def layer_file(index: int) -> str:
    """The name of a layer's file."""
    return f"layer-{index:03d}.safetensors"


# ---------------------------------------------------------------- formats taken apart


def kind_of(name: str) -> type[Any]:
    """The class of weights of this name."""
    for home in HOMES:
        try:
            found = getattr(importlib.import_module(home), name, None)
        except ModuleNotFoundError:
            continue
        if isinstance(found, type) and issubclass(found, formats._Format):
            return found
    raise LoadError(f"The folder holds weights of kind {name!r}, which this version of infero does "
                    "not know; update infero, or quantize the model again.")


def apart(weight: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(facts that fit into JSON, tensors) of a weight in any format; `together` undoes it."""
    facts: dict[str, Any] = {"kind": type(weight).__name__, "shape": list(weight.shape)}
    fields, tensors = dict[str, Any](), dict[str, Tensor]()
    for one in dataclasses.fields(weight):
        value = getattr(weight, one.name)
        if isinstance(value, Tensor):
            tensors[one.name] = value
        elif isinstance(value, formats._Format):
            fields[one.name], inner = apart(value)
            tensors |= {f"{one.name}.{key}": t for key, t in inner.items()}
        elif isinstance(value, torch.dtype):
            fields[one.name] = {"dtype": "activations"}
        else:
            fields[one.name] = list(value) if isinstance(value, torch.Size) else value
    return facts | {"fields": fields}, tensors


def together(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """The weight that was taken apart, for activations of `dtype`."""
    kind = kind_of(str(facts["kind"]))
    values: dict[str, Any] = {}
    for key, value in facts["fields"].items():
        if isinstance(value, dict) and "kind" in value:
            inner = {name.removeprefix(f"{key}."): t for name, t in tensors.items()
                     if name.startswith(f"{key}.")}
            values[key] = together(value, inner, dtype)
        elif isinstance(value, dict):
            values[key] = dtype
        else:
            values[key] = torch.Size(value) if key == "shape" else value
    for name, t in tensors.items():
        if "." not in name:
            served = name in SERVED.get(kind.__name__, ())
            values[name] = t.to(dtype) if served else t
    names = {one.name for one in dataclasses.fields(kind)}
    if set(values) != names:
        raise LoadError(f"it describes a {kind.__name__} by {sorted(values)}, which has "
                        f"{sorted(names)}")
    return kind(**values)


def stored(t: Tensor) -> Tensor:
    """Numbers as a folder keeps them: float32 in 16 bits, unless that would lose small ones."""
    if t.dtype != torch.float32 or t.dim() < 2 or not t.numel():
        return t
    smallest, largest = _HALF_RANGE
    return t.half() if smallest <= float(t.abs().max()) <= largest else t


def kept(weight: Any) -> Any:
    """A weight with the numbers that it will have after it was written and read."""
    if isinstance(weight, Tensor):
        return stored(weight).to(weight.dtype)
    changed = {one.name: kept(value) for one in dataclasses.fields(weight)
               if isinstance(value := getattr(weight, one.name), formats._Format)}
    changed |= {name: kept(t) for name in SERVED.get(type(weight).__name__, ())
                if (t := getattr(weight, name)) is not None}
    return dataclasses.replace(weight, **changed) if changed else weight


# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def survivable(folder: Path) -> Iterator[None]:
    """Turns a full disk into an error that says what is there and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InferoError(
            f"The disk is full: {folder} cannot be written. What was done is kept there; free some "
            "space and run the same command again, it goes on where it stopped.") from error


def write(path: Path, content: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is on the disk, all of it, before it has its name."""

    def surely(file: IO[bytes]) -> None:
        content(file)
        file.flush()
        os.fsync(file.fileno())

    cache.write(path, surely)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder last, where the system can."""
    with contextlib.suppress(OSError):
        at = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(at)
        finally:
            os.close(at)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write infero.json anew."""
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
    write(folder / NAME, lambda file: file.write(text.encode()))


def add_file(folder: Path, manifest: Manifest, name: str, content: bytes) -> None:
    """Write a small file and note its hash; the manifest itself is written by the caller."""
    write(folder / name, lambda file: file.write(content))
    manifest.files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def add_weights(folder: Path, manifest: Manifest, name: str, weights: Mapping[str, Any]) -> None:
    """Write tensors and formats to one file, then list it in the manifest, then write that.

    weights: "3.qkv" → a tensor or a weight in any format.
    """
    tensors, packed, packed_bytes = dict[str, Tensor](), dict[str, Any](), 0
    for key, weight in weights.items():
        if isinstance(weight, Tensor):
            tensors[key] = stored(weight)
        else:
            packed[key], parts = apart(kept(weight))
            served = SERVED.get(type(weight).__name__, ())
            parts = {part: stored(t) if part in served else t for part, t in parts.items()}
            packed_bytes += sum(t.nbytes for t in parts.values())
            tensors |= {f"{key}.{part}": t for part, t in parts.items()}
    # Wide numbers first, so that every tensor begins at a multiple of its numbers' size.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    write(folder / name, lambda file: cache.write_safetensors(file, ordered))
    path = folder / name
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest.files[name] = {"bytes": path.stat().st_size, "sha256": digest, "packed": packed,
                            "packed_bytes": packed_bytes,
                            "tensors": {key: list(t.shape) for key, t in ordered.items()}}
    write_manifest(folder, manifest)


# ---------------------------------------------------------------- reading


def read(folder: Path) -> Manifest:
    """The manifest of a folder; LoadError where it is missing, damaged or of another version."""
    raw = read_json(folder / NAME)
    if raw.get("format") != FORMAT:
        raise LoadError(f"{folder / NAME} is of format {raw.get('format')!r}; this version of "
                        f"infero reads {FORMAT}. Update infero, or quantize the model again.")
    try:
        manifest = Manifest(**raw)
        if not all(isinstance(value, dict) for value in
                   (manifest.request, manifest.model, *manifest.files.values())):
            raise TypeError("a part is not an object")
    except (TypeError, AttributeError) as error:
        raise LoadError(f"{folder / NAME} is damaged ({error}); quantize the model again."
                        ) from error
    return manifest


def check_file(folder: Path, manifest: Manifest, name: str) -> None:
    """A file is there, with the bytes that the manifest lists. LoadError says what is wrong."""
    path, facts = folder / name, manifest.files[name]
    again = "copy the folder again, or quantize the model again."
    if Path(name).name != name:
        raise LoadError(f"{folder / NAME} lists the file {name!r}, which is outside the folder; "
                        f"{again}")
    if not path.is_file():
        raise LoadError(f"{name} is missing from {folder}, though {NAME} lists it; {again}")
    if path.stat().st_size != facts.get("bytes"):
        raise LoadError(f"{path} has {path.stat().st_size:,} bytes, {NAME} says "
                        f"{facts.get('bytes')}: it is truncated or of another model; {again}")
    if cache.file_hash(path, cache.root()) != facts.get("sha256"):
        raise LoadError(f"{path} is corrupt or of another model: its SHA-256 is not the one in "
                        f"{NAME}; {again}")


def read_weights(folder: Path, manifest: Manifest, name: str, dtype: torch.dtype,
                 device: torch.device) -> dict[str, Any]:
    """What `add_weights` wrote: "3.qkv" → a tensor in `dtype`, or a weight for such activations."""
    check_file(folder, manifest, name)
    files, facts = SafetensorsFiles([folder / name], PACKED), manifest.files[name]
    listed = {key: tuple(shape) for key, shape in facts.get("tensors", {}).items()}
    for key in sorted(set(listed) | set(files.shapes)):
        if listed.get(key) != files.shapes.get(key):
            raise LoadError(f"Tensor {key!r} of {folder / name} has shape {files.shapes.get(key)}, "
                            f"{NAME} says {listed.get(key)} (None: there is none); the two do not "
                            "belong together. Quantize the model again.")
    tensors = {key: files.tensor(key).to(device) for key in files.shapes}
    found: dict[str, Any] = {}
    for key, parts in facts.get("packed", {}).items():
        mine = {part.removeprefix(f"{key}."): tensors.pop(part) for part in list(tensors)
                if part.startswith(f"{key}.")}
        try:
            found[key] = together(parts, mine, dtype)
            check_shapes(found[key], parts["shape"])
        except (LoadError, KeyError, TypeError, ValueError) as error:
            raise LoadError(f"{folder / NAME} and {name} do not belong together: {key}: {error}. "
                            "Quantize the model again.") from error
    exact = ("inv_freq",)
    return found | {key: t if key in exact else t.to(dtype) for key, t in tensors.items()}


def check_shapes(weight: Any, shape: list[int]) -> None:
    """Every tensor of a weight has the shape that goes with [out, in]."""
    out, inputs = shape
    wanted: dict[str, tuple[int, ...]] = {}
    if isinstance(weight, formats.Int4Weight):
        groups = -(-inputs // weight.group)
        wanted = {"words": (out, -(-inputs // formats.BLOCK) * formats.BLOCK // 8),
                  "scales": (out, groups), "zeros": (out, groups)}
    elif hasattr(weight, "values"):  # a byte a weight
        wanted = {"values": (out, inputs), "scales": (out,)}
    for name, size in wanted.items():
        t = getattr(weight, name)
        if t is not None and tuple(t.shape) != size:
            raise LoadError(f"{name} has shape {list(t.shape)}, a weight {shape} needs "
                            f"{list(size)}")
    if tuple(weight.shape) != (out, inputs):
        raise LoadError(f"its shape is {list(weight.shape)}, listed is {shape}")
