"""Reads GGUF files: one file with metadata, vocabulary and (usually quantized) weights.

The header is parsed here, in one pass and with every count checked against the file's size,
so that a damaged file costs neither memory nor time; the `gguf` library decodes the
quantized blocks (chapter 5 opens them). The format, all little-endian:

    "GGUF" u32 version, u64 tensors, u64 entries
    entries ×  string key, u32 type, value         string = u64 length + UTF-8 bytes
    tensors ×  string name, u32 dims, u64 × dims (fastest first), u32 type, u64 offset
    padding to the alignment, then the tensors' bytes

Specification: the file docs/gguf.md of the ggml project.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infero.errors import LoadError

if TYPE_CHECKING:
    import numpy as np

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
            10: "<Q", 11: "<q", 12: "<d"}  # GGUF value types
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 4
_ROWS_AT_ONCE = 4096  # rows of a matrix decoded at a time: bounds the extra memory


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies. `shape` is in our order, slowest dimension first."""

    name: str
    shape: tuple[int, ...]
    type_code: int
    offset: int  # bytes from the start of the file


class GgufFile:
    """An open GGUF file: `.metadata`, `.tensors`, and `read` for one tensor's values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # mmap refuses empty files
            raise LoadError(f"{path} is empty; fetch it again.") from None
        except OSError as error:
            raise LoadError(f"{path} cannot be read ({error.strerror}); check the path and its "
                            "permissions.") from error
        try:
            self._parse()
        except LoadError:
            raise
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError) as error:
            raise self._damaged(f"the header ends or breaks off early: {error}") from error

    def _damaged(self, what: str) -> LoadError:
        return LoadError(f"{self.path.name} ({len(self._data):,} bytes) is truncated or corrupt: "
                         f"{what}. Fetch the file again.")

    # ------------------------------------------------------------ header

    def _parse(self) -> None:
        data = self._data
        if data[:4] != b"GGUF":
            raise LoadError(f"{self.path.name} begins with {data[:4]!r} and not with b'GGUF': it "
                            "is no GGUF file. Give a .gguf file or a folder with safetensors.")
        self._at = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise LoadError(f"{self.path.name} is GGUF version {version}; infero reads versions 2 "
                            "and 3, little-endian. Convert the model again.")
        tensor_count, entry_count = self._scalar("<Q"), self._scalar("<Q")
        self._afford(tensor_count, 24, "tensors")  # the shortest possible entries, in bytes
        self._afford(entry_count, 13, "metadata entries")
        self.metadata: dict[str, Any] = {}
        for _ in range(entry_count):
            key = self._string()
            if key in self.metadata:
                raise self._damaged(f"metadata key {key!r} occurs twice")
            self.metadata[key] = self._value(self._scalar("<I"))
        self.tensors: dict[str, GgufTensor] = {}
        for _ in range(tensor_count):
            tensor = self._tensor()
            if tensor.name in self.tensors:
                raise self._damaged(f"tensor {tensor.name!r} occurs twice")
            self.tensors[tensor.name] = tensor
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"general.alignment is {alignment!r}, not a power of two")
        start = -(-self._at // alignment) * alignment
        for name, tensor in self.tensors.items():
            self.tensors[name] = tensor = GgufTensor(
                name, tensor.shape, tensor.type_code, start + tensor.offset
            )
            if tensor.offset + self._byte_count(tensor) > len(data):
                raise self._damaged(f"tensor {name!r} would end at byte "
                                    f"{tensor.offset + self._byte_count(tensor):,}")

    def _scalar(self, form: str) -> Any:
        value = struct.unpack_from(form, self._data, self._at)[0]
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = self._scalar("<Q")
        self._afford(length, 1, "characters of a string")
        text = self._data[self._at : self._at + length].decode("utf-8")
        self._at += length
        return text

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth > 4:
            raise self._damaged(f"metadata value of unknown type {kind} at byte {self._at:,}")
        item, count = self._scalar("<I"), self._scalar("<Q")
        if item in _SCALARS:
            form = _SCALARS[item]
            self._afford(count, struct.calcsize(form), "array items")
            values = struct.unpack_from(f"<{count}{form[1]}", self._data, self._at)
            self._at += count * struct.calcsize(form)
            return list(values)
        self._afford(count, 8, "array items")
        if item == _STRING:
            return self._strings(count)
        return [self._value(item, depth + 1) for _ in range(count)]

    def _strings(self, count: int) -> list[str]:
        """`count` strings: the vocabulary's 50,000 to 250,000 entries, so kept tight."""
        data, at, unpack, out = self._data, self._at, struct.Struct("<Q").unpack_from, []
        for _ in range(count):
            end = at + 8 + unpack(data, at)[0]
            if end > len(data):
                raise self._damaged(f"a string at byte {at:,} would end at byte {end:,}")
            out.append(data[at + 8 : end].decode("utf-8"))
            at = end
        self._at = at
        return out

    def _afford(self, count: int, size: int, what: str) -> None:
        """Refuse a count that the rest of the file could not hold, before acting on it."""
        if count * size > len(self._data) - self._at:
            raise self._damaged(f"it announces {count:,} {what} at byte {self._at:,}")

    def _tensor(self) -> GgufTensor:
        name = self._string()
        dims = self._scalar("<I")
        if not 1 <= dims <= _MAX_DIMS:
            raise self._damaged(f"tensor {name!r} has {dims} dimensions, the limit is {_MAX_DIMS}")
        shape = tuple(self._scalar("<Q") for _ in range(dims))[::-1]
        return GgufTensor(name, shape, self._scalar("<I"), self._scalar("<Q"))

    # ------------------------------------------------------------ tensors

    @cached_property
    def _sizes(self) -> dict[int, tuple[int, int]]:
        """Type code → (values in a block, bytes of a block)."""
        try:
            from gguf.constants import GGML_QUANT_SIZES
        except ImportError:
            raise LoadError("Reading GGUF files needs the package gguf; run: pip install gguf"
                            ) from None

        return {int(code): sizes for code, sizes in GGML_QUANT_SIZES.items()}

    def _byte_count(self, tensor: GgufTensor) -> int:
        if tensor.type_code not in self._sizes:
            raise LoadError(f"Tensor {tensor.name!r} of {self.path.name} is of GGUF type "
                            f"{tensor.type_code}, which the gguf library does not know; update it "
                            "(pip install -U gguf) or use another quantization.")
        values, size = self._sizes[tensor.type_code]
        if tensor.shape[-1] % values:
            raise self._damaged(f"tensor {tensor.name!r} has rows of {tensor.shape[-1]} values in "
                                f"blocks of {values}")
        count = 1
        for n in tensor.shape:
            count *= n
        return count // values * size

    def raw(self, name: str) -> np.ndarray:
        """One matrix's bytes as they lie in the file, a view: [rows, bytes of a row] uint8."""
        import numpy as np

        tensor = self.tensors[name]
        found = np.frombuffer(self._data, np.uint8, self._byte_count(tensor), tensor.offset)
        return found.reshape(tensor.shape[0], -1)

    def read(self, name: str, row_order: np.ndarray | None = None
             ) -> Iterator[np.ndarray]:
        """Yield one tensor's values in order as flat float32 arrays, some rows at a time.

        `row_order` [rows] takes the rows in another order: cheap, since it moves packed bytes.
        """
        import numpy as np
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        kind = GGMLQuantizationType(tensor.type_code)
        raw = np.frombuffer(self._data, np.uint8, self._byte_count(tensor), tensor.offset)
        rows = raw.reshape(tensor.shape[0] if len(tensor.shape) > 1 else 1, -1)
        if row_order is not None:
            rows = rows.reshape(len(row_order), -1)[row_order]
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            try:
                with np.errstate(all="ignore"):  # damaged scales overflow to inf; not our alarm
                    yield _decode(part, kind, dequantize).reshape(-1)
            except (NotImplementedError, ValueError) as error:
                raise LoadError(f"Tensor {name!r} of {self.path.name} is stored as {kind.name}, "
                                "which the gguf library cannot decode; use another "
                                "quantization.") from error


def _decode(part: np.ndarray, kind: Any, dequantize: Any) -> np.ndarray:
    import numpy as np

    plain = {"F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
    if kind.name in plain:
        return part.view(plain[kind.name]).astype(np.float32)
    values = np.asarray(dequantize(part, kind), np.float32)
    return values if values.flags.writeable else values.copy()  # float32 lies in the file itself
