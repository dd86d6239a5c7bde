"""Reads safetensors: one file, or several with an index. Nothing in them is ever executed.

The format is a JSON header with the place of each tensor and then plain bytes, so a file can
be mapped into memory and its tensors used where they lie. Pickle checkpoints (.bin, .pt,
.pth) run code when they are read; infero refuses them by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infero.errors import LoadError
from infero.loading.vocabulary import read_json

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_INDEX = "model.safetensors.index.json"
_FLOATS = {"F64", "F32", "F16", "BF16"}
PACKED = _FLOATS | {"F8_E4M3", "F8_E5M2", "I8", "U8", "I16", "I32", "I64", "BOOL"}
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8",
          torch.uint8: "U8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
          torch.float64: "F64", torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3",
          torch.float8_e5m2: "F8_E5M2"}


def refuse_pickle(path: Path) -> LoadError:
    """The error for a checkpoint that only unpickling could read."""
    return LoadError(
        f"{path.name} is a pickle checkpoint: reading it can run any code that its author hid in "
        "it, so infero never does. Use the model's *.safetensors or .gguf files."
    )


def find_files(place: Path) -> list[Path]:
    """The safetensors files of a model: a single file itself, or those of a folder."""
    if place.is_file():
        return [place]
    index = place / _INDEX
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise LoadError(f"{index} names no weights; fetch it again.")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise LoadError(f"{index} names the file {name!r}; it must be a .safetensors file "
                                "in the same folder.")
            if not (place / name).exists():
                raise LoadError(f"{name} is missing from {place}, though {_INDEX} lists it; the "
                                "download is incomplete: fetch the model again.")
        return [place / name for name in names]
    single = place / "model.safetensors"
    if single.exists():
        return [single]
    others = sorted(place.glob("*.safetensors"))
    if len(others) == 1:
        return others
    if others:
        raise LoadError(f"{place} holds {len(others)} safetensors files and no {_INDEX} that says "
                        "how they belong together; fetch the model again.")
    pickles = [p for p in sorted(place.iterdir()) if p.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise refuse_pickle(pickles[0])
    raise LoadError(f"{place} holds no *.safetensors and no .gguf file; a model folder needs "
                    "config.json and model.safetensors, or one .gguf file.")


class SafetensorsFiles:
    """Open safetensors files: names and shapes of all tensors, values on demand.

    allowed: the kinds of numbers that may occur; `PACKED` for quantized weights.
    """

    def __init__(self, paths: list[Path], allowed: Set[str] = _FLOATS) -> None:
        from safetensors import safe_open

        self._of: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            try:
                file = safe_open(path, framework="pt")
                names = list(file.keys())
            except Exception as error:  # SafetensorError, OSError, and what a bad header causes
                raise LoadError(f"{path} is truncated or corrupt ({error}); fetch it again."
                                ) from error
            for name in names:
                if name in self._of:
                    raise LoadError(f"Tensor {name!r} occurs in two files ({path.name} is the "
                                    "second); fetch the model again.")
                entry = file.get_slice(name)
                kind = entry.get_dtype()
                if kind not in allowed:
                    raise LoadError(f"Tensor {name!r} of {path.name} is stored as {kind}; infero "
                                    "reads F64, F32, F16 and BF16. Choose the unquantized model.")
                self._of[name] = file
                self.shapes[name] = tuple(entry.get_shape())

    def tensor(self, name: str) -> Tensor:
        """One tensor, lying in the mapped file: its bytes are read when they are used."""
        return self._of[name].get_tensor(name)

    def read(self, name: str) -> Iterator[Tensor]:
        """Yield one tensor's values in order (here all at once; no copy is made)."""
        yield self.tensor(name).reshape(-1)


def float_name(dtype: torch.dtype) -> str:
    """The name of a dtype in the safetensors format."""
    return _NAMES[dtype]
