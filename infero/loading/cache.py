"""Keeps converted weights, so that a GGUF file is decoded once and not at every start.

An entry is two files in the cache folder ($INFERO_CACHE, else the platform's cache folder;
INFERO_CACHE=off switches it off):

    weights/KEY.safetensors   the engine's own tensors, used where they lie by memory mapping
    weights/KEY.json          configuration, tokenizer, size and checksums of the other file

KEY is the SHA-256 of the model file and the dtype. Both are written under another name and
then renamed, the JSON last, so a crash leaves no half entry. At each load the weights' size,
modification time and a sample of their pages are compared with the JSON; if the time differs,
all bytes are. A bad entry is removed and made again, and so is one made by other code than
today's. Hashing the model file is saved too: its SHA-256 is remembered with its path, size and
modification time.

A cache is never worth an error: without space or permission it says so in one line.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import secrets
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from infero.errors import LoadError
from infero.kernels import cpu_products
from infero.loading.safetensors_file import PACKED, SafetensorsFiles, float_name
from infero.loading.weights import build
from infero.model import Model, ModelConfig, RopeScaling
from infero.tokenizer import Tokenizer

_CONVERTERS = ("cache.py", "config.py", "gguf_file.py", "gguf_stored.py", "vocabulary.py",
               "weights.py", "../kernels/cpu_products.py")
_SAMPLE_BYTES, _STRIDE_BYTES = 4096, 1 << 20
log = logging.getLogger("infero")


def root() -> Path | None:
    """The cache folder, or None where INFERO_CACHE switches it off."""
    chosen = os.environ.get("INFERO_CACHE", "").strip()
    if chosen.lower() in ("off", "0", "none"):
        return None
    try:
        return Path(chosen).expanduser() if chosen else _platform_folder()
    except RuntimeError:  # a user without a home folder
        return None


def _platform_folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "infero"


# ---------------------------------------------------------------- the model file's hash


def file_hash(path: Path, folder: Path | None) -> str:
    """SHA-256 of a model file in hex, remembered as long as its size and time stay the same."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    memo = folder / "hashes.json" if folder else None
    known = read(memo) if memo else {}
    entry = known.get(str(path.resolve()))
    if isinstance(entry, dict) and entry.get("stamp") == stamp:
        return str(entry.get("sha256"))
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if memo:
        known[str(path.resolve())] = {"stamp": stamp, "sha256": digest}
        quietly(lambda: write(memo, lambda f: f.write(json.dumps(known).encode())))
    return digest


# ---------------------------------------------------------------- entries


@dataclass(frozen=True)
class Entry:
    """The place of one converted model in the cache."""

    folder: Path
    key: str

    @property
    def weights(self) -> Path:
        return self.folder / "weights" / f"{self.key}.safetensors"

    @property
    def facts(self) -> Path:
        return self.folder / "weights" / f"{self.key}.json"


def entry_for(folder: Path, sha256: str, dtype: torch.dtype, form: str = "") -> Entry:
    return Entry(folder, f"{sha256[:32]}-{float_name(dtype).lower()}{form}")


def form(device: torch.device) -> str | None:
    """What matrices kept as stored are called here: packed for this CPU; None: not cached."""
    there = cpu_products.layout() if device.type == "cpu" else None
    return None if there is None else f"-{'halves' if there.halves else 'pairs'}{there.block}"


@functools.cache
def code_version() -> str:
    """A fingerprint of the code that makes entries: another version converts anew."""
    digest = hashlib.sha256()
    for name in _CONVERTERS:
        source = Path(__file__).parent / name
        if source.exists():
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def fetch(entry: Entry, dtype: torch.dtype, device: torch.device) -> Model | None:
    """The converted model of an entry, or None where there is none or it was damaged."""
    if not os.access(entry.facts, os.R_OK):
        return None
    try:
        facts = read(entry.facts)
        if facts and facts.get("code") != code_version():
            return None
        if not _intact(entry, facts):
            raise LoadError("checksum differs")
        files = SafetensorsFiles([entry.weights], PACKED)
        tensors: dict[str, Any] = {name: files.tensor(name) for name in files.shapes}
        inv_freq = tensors.pop("inv_freq")
        packed = {name: cpu_products.NibbleWeight(
            tensors.pop(f"{name}.packed"), tensors.pop(f"{name}.scales"), group, planes, shape)
            for name, (group, planes, shape) in facts.get("packed", {}).items()}
        tensors |= packed
        if any(t.dtype != dtype for t in tensors.values()):
            raise LoadError("dtype differs")
        model = build(_config(facts["config"]),
                      {name: t.to(device) for name, t in tensors.items()}, inv_freq)
        model.tokenizer = _tokenizer(facts["tokenizer"])
        return model
    except (LoadError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("The cached weights %s are damaged (%s): removed, converting again.",
                    entry.weights.name, error)
        for path in (entry.facts, entry.weights):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        return None


def store(entry: Entry, model: Model) -> None:
    """Write a converted model to the cache; a failure costs a warning and nothing else."""
    try:
        entry.weights.parent.mkdir(parents=True, exist_ok=True)
        needed, free = model.parameter_bytes(), shutil.disk_usage(entry.weights.parent).free
        if needed * 1.1 > free:
            raise OSError(f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free")
        write(entry.weights, lambda file: write_safetensors(file, _tensors(model)))
        stat = entry.weights.stat()
        facts = {
            "code": code_version(), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns,
            "sample": _checksum(entry.weights, _STRIDE_BYTES), "crc32": _checksum(entry.weights),
            "packed": {name: [t.group, t.planes, list(t.shape)]
                       for name, t in _named(model).items() if not isinstance(t, Tensor)},
            "config": asdict(model.config), "tokenizer": _tokenizer_facts(model.tokenizer),
        }
        write(entry.facts, lambda file: file.write(json.dumps(facts).encode()))
    except OSError as error:
        log.warning("Converted weights are not kept in %s (%s), so each start converts them again; "
                    "set INFERO_CACHE to a writable folder with space.", entry.folder,
                    error.strerror or error)


def _intact(entry: Entry, facts: dict[str, Any]) -> bool:
    stat = entry.weights.stat()
    if stat.st_size != facts["size"]:
        return False
    if stat.st_mtime_ns == facts["mtime_ns"]:
        return _checksum(entry.weights, _STRIDE_BYTES) == facts["sample"]
    if _checksum(entry.weights) != facts["crc32"]:
        return False
    facts["mtime_ns"] = stat.st_mtime_ns  # a copied or restored folder: note its new time
    quietly(lambda: write(entry.facts, lambda f: f.write(json.dumps(facts).encode())))
    return True


def _checksum(path: Path, stride: int = 0) -> int:
    """CRC-32 of a file: of all bytes, or of one page in every `stride` bytes and the last."""
    crc = 0
    with open(path, "rb") as file:
        if not stride:
            while block := file.read(1 << 22):
                crc = zlib.crc32(block, crc)
            return crc
        size = file.seek(0, os.SEEK_END)
        for at in [*range(0, size, stride), max(size - _SAMPLE_BYTES, 0)]:
            file.seek(at)
            crc = zlib.crc32(file.read(_SAMPLE_BYTES), crc)
    return crc


# ---------------------------------------------------------------- what an entry holds


def _tensors(model: Model) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, weight in _named(model).items():
        if isinstance(weight, Tensor):
            found[name] = weight
        else:
            found |= {f"{name}.packed": weight.packed, f"{name}.scales": weight.scales}
    return found


def _named(model: Model) -> dict[str, Any]:
    tensors: dict[str, Any] = {"embedding": model.embedding, "final_norm": model.final_norm,
               "inv_freq": model.inv_freq}
    if not model.config.tie_embeddings:
        tensors["head"] = model.head
    for i, layer in enumerate(model.layers):
        tensors |= {f"{i}.{k}": t for k, t in vars(layer).items() if t is not None}
    return tensors


def write_safetensors(file: IO[bytes], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors one by one, where the library's own writer would copy all of them first.

    The data begin at a multiple of 64 bytes, which is what vector loads like.
    """
    header, at = {}, 0
    for name, t in tensors.items():
        size = t.numel() * t.element_size()
        header[name] = {"dtype": float_name(t.dtype), "shape": list(t.shape),
                        "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    file.write(len(text).to_bytes(8, "little") + text)
    for t in tensors.values():
        file.write(t.detach().cpu().contiguous().view(torch.uint8).numpy().data)


def _config(facts: dict[str, Any]) -> ModelConfig:
    scaling = facts.pop("rope_scaling")
    layers = facts.pop("sliding_layers")
    ends = facts.pop("eos_token_ids")
    return ModelConfig(
        **facts, rope_scaling=RopeScaling(**scaling) if scaling else None,
        sliding_layers=None if layers is None else tuple(layers), eos_token_ids=tuple(ends),
    )


def _tokenizer_facts(tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    if tokenizer is None:
        return None
    return {"backend": tokenizer.backend.to_str(), "eos_ids": tokenizer.eos_ids,
            "bos_id": tokenizer.bos_id, "chat_template": tokenizer.chat_template,
            "special_names": tokenizer.special_names}


def _tokenizer(facts: dict[str, Any] | None) -> Tokenizer | None:
    if facts is None:
        return None
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_str(facts["backend"])
    except Exception as error:
        raise LoadError(f"its tokenizer cannot be read: {error}") from error
    return Tokenizer(backend, tuple(facts["eos_ids"]), facts["bos_id"], facts["chat_template"],
                     facts["special_names"])


# ---------------------------------------------------------------- files


def read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none or it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write(path: Path, content: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under a temporary name beside it, then rename it: all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(draft, "xb") as file:
            content(file)
        os.replace(draft, path)
    except BaseException:
        quietly(lambda: draft.unlink(missing_ok=True))
        raise


def quietly(action: Callable[[], Any]) -> None:
    try:
        action()
    except OSError:
        pass
