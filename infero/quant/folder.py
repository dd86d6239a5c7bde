"""Making the folder of a quantized model: begin or go on, room on the disk, the last rename.

`manifest.py` says what is in it and in which order it is written. Chapters 4 and 5.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from infero.errors import InferoError, LoadError
from infero.model import Layer, Model, ModelConfig
from infero.quant import manifest
from infero.quant.manifest import NAME, PARTIAL, Manifest

OLD = ".old"


# ---------------------------------------------------------------- names


def check_free_name(goal: Path, force: bool) -> None:
    """Refuse to write over what is no quantized model, before any work is done."""
    if goal.is_dir():
        if any(goal.iterdir()) and not (goal / NAME).exists():
            raise InferoError(f"{goal} holds other files and no {NAME}: choose a folder that is "
                              "empty or does not exist"
                              f"{'; --force replaces quantized models only' if force else ''}.")
    elif goal.exists():
        raise InferoError(f"{goal} is a file; choose the name of a folder.")
    elif not goal.parent.is_dir():
        raise InferoError(f"There is no folder {goal.parent} to put {goal.name} in: make it first.")


def holds(goal: Path, request: dict[str, Any]) -> bool:
    """Whether a folder is whole and of exactly this request."""
    try:
        found = manifest.read(goal) if (goal / NAME).exists() else None
    except LoadError:
        return False
    return found is not None and found.complete and not differences(found.request, request)


def unlike(goal: Path, request: dict[str, Any]) -> str:
    """What the folder that is there differs in, in words."""
    try:
        return "; ".join(differences(manifest.read(goal).request, request)[:3])
    except LoadError as error:
        return str(error)


def differences(one: dict[str, Any], other: dict[str, Any], where: str = "") -> list[str]:
    """What two requests disagree on, in words; names of files and models do not count."""
    found = []
    for key in sorted(set(one) | set(other)):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{key} ")
        elif a != b and not (where and key in ("name", "source")):
            found.append(f"{where}{key} {_short(a)}, now {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


# ---------------------------------------------------------------- begin, go on, finish


@contextlib.contextmanager
def opened(goal: Path, begun: Manifest, resume: bool) -> Iterator[tuple[Path, Manifest]]:
    """FOLDER.partial with its journal, ours alone while it is open: begun, or as it was left."""
    partial = goal.with_name(goal.name + PARTIAL)
    if partial.exists() and not partial.is_dir():
        raise InferoError(f"{partial} is a file and in the way: remove it.")
    partial.mkdir(exist_ok=True)
    with _locked(partial):
        left = [path for path in partial.iterdir() if not path.name.startswith(".")]
        if left and not (partial / NAME).exists():
            raise InferoError(f"{partial} holds files that are not infero's, such as "
                              f"{left[0].name}: remove it, or choose another folder.")
        if left and not resume:
            _empty(partial)
        elif left:
            begun = _left(partial, begun)
        for path in partial.glob(".*"):  # drafts of a process that was killed
            path.unlink()
        if not left or not resume:
            with manifest.survivable(partial):
                manifest.write_manifest(partial, begun)
        yield partial, begun


def _left(partial: Path, begun: Manifest) -> Manifest:
    """The journal of an earlier run of the same request, without the files that were damaged."""
    found = manifest.read(partial)
    if different := differences(found.request, begun.request):
        raise InferoError(f"{partial} was begun with {'; '.join(different[:3])}: give the same "
                          "options to go on with it, or --no-resume to begin anew.")
    for name in list(found.files):
        try:
            manifest.check_file(partial, found, name)
        except LoadError:
            del found.files[name]
    found.complete = False
    return found


def _empty(partial: Path) -> None:
    """Remove what an earlier run left: the journal first, so that nothing is listed in vain."""
    for path in sorted(partial.iterdir(), key=lambda path: path.name != NAME):
        path.unlink() if not path.is_dir() else shutil.rmtree(path)


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Held by one process at a time, and given up when it ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    at = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(at, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InferoError(f"Another process is writing {partial}: wait for it, or choose "
                              "another folder.") from None
        yield
    finally:
        os.close(at)


def finish(partial: Path, goal: Path) -> None:
    """Give the folder its name; a model that had it gives way first."""
    old = goal.with_name(goal.name + OLD)
    if goal.exists():
        if (old / NAME).exists():
            shutil.rmtree(old)
        os.replace(goal, old)
    os.rename(partial, goal)
    manifest._sync(goal.parent)
    if (old / NAME).exists() or (old.is_dir() and not any(old.iterdir())):
        shutil.rmtree(old, ignore_errors=True)


def check_space(partial: Path, listed: Manifest, needed: int) -> None:
    """Refuse to begin what the disk has no room for."""
    needed -= bytes_of(listed)
    free = shutil.disk_usage(partial).free
    if needed > free:
        if not listed.files:
            shutil.rmtree(partial, ignore_errors=True)
        raise InferoError(f"{partial.parent} has {free / 1e6:,.0f} MB free, and the quantized "
                          f"model needs about {needed / 1e6:,.0f} MB: free some space, or choose "
                          "a folder on another disk.")


def bytes_of(listed: Manifest) -> int:
    """Bytes of the files that are listed."""
    return sum(int(facts["bytes"]) for facts in listed.files.values())


# ---------------------------------------------------------------- what is in it


def layer(partial: Path, listed: Manifest, index: int, model: Model) -> Layer | None:
    """A layer that was written before, or None."""
    name = manifest.layer_file(index)
    if name not in listed.files:
        return None
    dtype, device = model.dtype, model.device
    weights = manifest.read_weights(partial, listed, name, dtype, device)
    # Copies: a number's last bit may depend on where in memory a tensor begins.
    fields = {key.partition(".")[2]: w.clone() if isinstance(w, torch.Tensor) else w
              for key, w in weights.items()}
    return Layer(**fields)


def add_texts(partial: Path, listed: Manifest, model: Model) -> None:
    """Tokenizer and configuration, in the form that other programs read too."""
    method = listed.request["method"]
    raw = hf_config(model.config) | {"quantization_config": {"quant_method": "infero",
                                                             "method": method}}
    manifest.add_file(partial, listed, "config.json", json.dumps(raw, indent=1).encode())
    tokenizer = model.tokenizer
    if tokenizer is None:
        return
    listed.tokenizer = {"eos_ids": list(tokenizer.eos_ids), "bos_id": tokenizer.bos_id}
    settings = dict(tokenizer.special_names)
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    manifest.add_file(partial, listed, "tokenizer.json", tokenizer.backend.to_str().encode())
    manifest.add_file(partial, listed, "tokenizer_config.json",
                      json.dumps(settings, indent=1, ensure_ascii=False).encode())


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """A model's shape under the names of Hugging Face's config.json."""
    c, scaling = config, config.rope_scaling
    raw: dict[str, Any] = {
        "model_type": c.architecture, "vocab_size": c.vocab_size, "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size, "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads, "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim, "max_position_embeddings": c.max_context,
        "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tie_embeddings, "attention_bias": c.o_bias or c.qkv_bias,
        "mlp_bias": c.mlp_bias, "bos_token_id": c.bos_token_id,
        "eos_token_id": list(c.eos_token_ids), "sliding_window": c.sliding_window,
    }
    if scaling is not None:
        raw["rope_scaling"] = {
            "rope_type": scaling.kind, "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context}
    return raw


def model_config(facts: dict[str, Any]) -> ModelConfig:
    """The shape that a manifest lists."""
    from infero.loading import cache

    return cache._config(dict(facts))

