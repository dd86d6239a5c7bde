"""A model through any of the methods, one layer at a time; in memory, or into a folder.

    hidden = embed(calibration text)
    for each layer:  fold factors, round qkv, o, gate_up and down, each seeing what the rounded ones
                     before it send; write the layer; hidden = the rounded layer applied to hidden

Only one layer's statistics exist at a time. In a folder every finished layer is written at once
(`manifest.py`), so a run that was killed goes on where it stopped: the hidden states are computed
again from the layers that are there, and the result is the same to the bit. Chapters 4 and 5; the
order of work is GPTQ's (arXiv:2210.17323).
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import infero
from infero.errors import ConfigError, InferoError, LoadError
from infero.loading import cache
from infero.loading import source as sources
from infero.loading.safetensors_file import find_files
from infero.model import Layer, Model, ModelConfig
from infero.quant import calibration, folder, manifest
from infero.quant.fold import MATRICES
from infero.quant.manifest import Manifest
from infero.quant.methods import (
    METHODS,
    Quantizer,
    Settings,
    first_not_finite,
    quantizer,
    wants_text,
)

__all__ = ["METHODS", "Quantizer", "Settings", "Step", "quantize_model", "quantize_to", "quantizer"]


@dataclass(frozen=True)
class Step:
    """How far the work is: `done` of `total` layers (the head counts as one), and what is next."""

    done: int
    total: int
    what: str


Progress = Callable[[Step], None]
Ids = Sequence[int] | Tensor


def quantize_model(model: Model, settings: Settings, ids: Ids | None = None,
                   progress: Progress | None = None) -> Model:
    """A new model in the settings' format; `model` stays as it is.

    ids: the calibration text's tokens, or windows [n, length] of it; by default the text that
    infero ships. Its numbers are those that `quantize_to` writes.
    """
    method = quantizer(settings)
    work = checked(model)
    windows = calibration_windows(work, settings, ids) if wants_text(method) else None
    report, count = progress or _silent, work.config.num_layers
    method.go_on(method.begin(work, windows, lambda what: report(Step(0, count + 1, what))))
    for _ in layers_done(work, method, windows, report):
        pass
    report(Step(count, count + 1, "head"))
    if settings.head:
        work.head = method.head(work.head)  # type: ignore[assignment]
    elif work.head is not work.embedding:
        work.head = manifest.kept(work.head)
    return work


def layers_done(model: Model, method: Quantizer, windows: Tensor | None, progress: Progress,
                ready: Callable[[int], Layer | None] = lambda index: None) -> Iterator[int]:
    """Quantize layer after layer of `model` in place, and yield each one's index once it is done.

    ready: gives a layer that was quantized before, so that only its outputs are computed again.
    """
    count = model.config.num_layers
    hidden = original = None if windows is None else calibration.embed(model, windows)
    for index in range(count):
        found = ready(index)
        what = f"layer {index + 1} of {count}" + (": there already" if found else "")
        progress(Step(index, count + 1, what))
        if method.trains and original is not None:  # what the layer should make, unrounded
            original = calibration.advance(model, index, original)
        if found is not None:
            model.layers[index] = found
        else:
            quantize_layer(model, method, index, hidden, original)
        yield index
        if hidden is not None and index + 1 < count:
            hidden = calibration.advance(model, index, hidden)


def quantize_layer(model: Model, method: Quantizer, index: int, hidden: Tensor | None,
                   aim: Tensor | None = None) -> None:
    """Replace layer `index` by its quantized form.

    hidden: [n, length, hidden], what comes in; aim: what a method that trains is to make of it.
    """
    layer, method.index = model.layers[index], index
    if method.trains:
        assert hidden is not None and aim is not None
        for name, weight in method.layer(model, index, hidden, aim).items():
            setattr(layer, name, manifest.kept(weight))
        return
    if method.folds:
        assert hidden is not None
        method.prepare(model, index, calibration.layer_stats(model, index, hidden,
                                                               method.needs_hessian))
    for name in MATRICES:
        stats = None
        if method.needs_stats:
            assert hidden is not None
            stats = calibration.layer_stats(model, index, hidden, method.needs_hessian,
                                            names=(name,))[name]
        weight = getattr(layer, name)
        try:
            rounded = method.matrix(name, weight, stats)
        except ConfigError as error:
            raise ConfigError(f"layers.{index}.{name}: {error}") from error
        setattr(layer, name, manifest.kept(rounded))


# ---------------------------------------------------------------- what goes in


def checked(model: Model) -> Model:
    """A copy whose layers may be replaced; ConfigError where the model cannot be quantized."""
    named = [(f"layers.{i}.{key}", t) for i, layer in enumerate(model.layers)
             for key, t in vars(layer).items() if t is not None]
    named += [("embedding", model.embedding), ("final_norm", model.final_norm)]
    named += [("head", model.head)] if model.head is not model.embedding else []
    for name, tensor in named:
        if not isinstance(tensor, Tensor):
            raise ConfigError(f"{name} of {model.name or 'the model'} is quantized already "
                              f"({type(tensor).__name__}): start from the model in full precision.")
    if bad := first_not_finite(named):
        raise ConfigError(f"{bad}: the checkpoint is damaged or was saved in a type that "
                          "overflowed. Fetch it again, or load it in float32.")
    embedding = manifest.kept(model.embedding)
    head = embedding if model.head is model.embedding else model.head
    return replace(model, layers=[replace(layer) for layer in model.layers], embedding=embedding,
                   head=head)


def calibration_windows(model: Model, settings: Settings, ids: Ids | None) -> Tensor:
    """The windows [n, length] that a method looks at; by default of the text that infero ships."""
    if settings.length > model.config.max_context:
        raise ConfigError(f"length is {settings.length}, but the model's context holds "
                          f"{model.config.max_context} tokens: choose a length up to that.")
    if ids is None:
        ids = _tokens(model, None)[0]
    found = torch.as_tensor(ids, dtype=torch.int64)
    if found.dim() < 2:
        found = calibration.sequences(found, settings.length, settings.windows, settings.seed)
    outside = found[(found < 0) | (found >= model.config.vocab_size)]
    if outside.numel():
        raise ConfigError(f"The calibration text holds the token {int(outside[0])}, but the "
                          f"model's vocabulary has {model.config.vocab_size:,}.")
    return found


def _tokens(model: Model, file: str | os.PathLike[str] | None) -> tuple[list[int], dict[str, str]]:
    """Tokens of the calibration text, and where it comes from."""
    if model.tokenizer is None:
        raise ConfigError("The model has no tokenizer, so no calibration text can be read: load "
                          "it from a folder with tokenizer.json, or use a method that needs none "
                          "(rtn, int8, fp8).")
    if file is None:
        from infero import evaluate

        text, name = evaluate.text("calibration"), "infero's own"
    else:
        try:
            text, name = Path(file).read_text(encoding="utf-8"), Path(file).name
        except UnicodeDecodeError as error:
            raise LoadError(f"{file} is no UTF-8 text (byte {error.start}): give --calibration a "
                            "text file.") from error
        except OSError as error:
            raise LoadError(f"{file}: {error.strerror}; give --calibration a text file that can "
                            "be read.") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    return model.tokenizer.encode(text), {"source": name, "sha256": digest}


def base_of(source: Model | str | os.PathLike[str] | None) -> dict[str, Any]:
    """The base model's name, bytes on the disk and a SHA-256: of its file, of its folder's files,
    or of its numbers."""
    digest = hashlib.sha256()
    if isinstance(source, Model):
        tensors = [source.embedding, source.final_norm, source.head, source.inv_freq]
        tensors += [t for layer in source.layers for t in vars(layer).values() if t is not None]
        for t in tensors:
            if not isinstance(t, Tensor):
                checked(source)  # says that it is quantized already
            digest.update(t.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return {"name": source.name, "sha256": digest.hexdigest()}
    path, name, _ = sources.resolve(source)
    if path.is_dir() and (path / manifest.NAME).exists():
        made = manifest.read(path).request
        raise ConfigError(f"{path} is quantized already (by {made.get('method')} from "
                          f"{made.get('base', {}).get('name')}): start from the model in full "
                          "precision.")
    if path.suffix.lower() == ".gguf":
        return {"name": name, "sha256": cache.file_hash(path, cache.root()),
                "bytes": path.stat().st_size}
    config = (path if path.is_dir() else path.parent) / "config.json"
    files = [*find_files(path), *([config] if config.exists() else [])]
    for file in files:
        digest.update(f"{file.name} {cache.file_hash(file, cache.root())}\n".encode())
    return {"name": name, "sha256": digest.hexdigest(),
            "bytes": sum(file.stat().st_size for file in files)}


# ---------------------------------------------------------------- into a folder


def quantize_to(model_source: Model | str | os.PathLike[str] | None, settings: Settings,
                target: str | os.PathLike[str], progress: Progress | None = None,
                resume: bool = True, *, force: bool = False,
                text: str | os.PathLike[str] | None = None, ids: Ids | None = None,
                dtype: str = "float32", device: str | None = None) -> Path:
    """Quantize a model into the folder `target`, from which `infero.load` reads it.

    resume: go on with TARGET.partial if it is of the same request (otherwise that is an error);
    False: begin anew. force: replace a quantized model that is at `target`. text: a file to
    calibrate with instead of infero's own text; ids: its tokens instead. dtype: the numbers to
    compute in. Nothing is done where `target` already holds exactly what is asked for.
    """
    goal = Path(os.path.abspath(os.path.expanduser(os.fspath(target))))
    report, method = progress or _silent, quantizer(settings)
    folder.check_free_name(goal, force)
    report(Step(0, 1, "reading the model"))
    base = base_of(model_source)
    model = _opened(model_source, dtype, device)
    request: dict[str, Any] = {
        "method": settings.method, "settings": asdict(settings), "base": base, "calibration": None,
        "dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type,
        "infero": f"{infero.__version__} ({code_version()})"}
    windows = None
    if wants_text(method):
        where: dict[str, str] = {"source": "tokens"}
        if ids is None:
            ids, where = _tokens(model, text)
        else:
            numbers = torch.as_tensor(ids, dtype=torch.int64)
            where["sha256"] = hashlib.sha256(numbers.contiguous().numpy().data).hexdigest()
        windows, request["calibration"] = calibration_windows(model, settings, ids), where
    elif text is not None or ids is not None:
        raise ConfigError(f"{settings.method} looks at no text: leave --calibration away.")
    if folder.holds(goal, request):
        return goal
    if goal.exists() and not force and any(goal.iterdir()):
        raise InferoError(f"{goal} holds another quantized model ({folder.unlike(goal, request)})"
                          ": choose another folder, or replace it with --force.")
    work = checked(model)
    begun = Manifest(request=request, model=asdict(work.config))
    with folder.opened(goal, begun, resume) as (partial, listed), manifest.survivable(partial):
        folder.check_space(partial, listed, estimated_bytes(work.config, settings))
        _fill(partial, listed, work, method, windows, report)
        folder.finish(partial, goal)
    return goal


def _opened(source: Model | str | os.PathLike[str] | None, dtype: str, device: str | None) -> Model:
    if isinstance(source, Model):
        return source
    from infero import loading

    return loading.load(source, dtype=dtype, device=device)


def _fill(partial: Path, listed: Manifest, model: Model, method: Quantizer,
          windows: Tensor | None, report: Progress) -> None:
    """Write what is missing in FOLDER.partial: layers, the rest, and the last word."""
    started, spent = time.perf_counter(), listed.seconds
    parameters, numbers = parameter_count(model), matrix_numbers(model.config)
    if listed.decided is None:
        total = model.config.num_layers + 1
        listed.decided = method.begin(model, windows, lambda what: report(Step(0, total, what)))
        manifest.write_manifest(partial, listed)
    method.go_on(listed.decided)

    def ready(index: int) -> Layer | None:
        return folder.layer(partial, listed, index, model)

    names = [manifest.layer_file(i) for i in range(model.config.num_layers)]
    if not all(name in listed.files for name in names):
        for index in layers_done(model, method, windows, report, ready):
            name, layer = names[index], model.layers[index]
            if name not in listed.files:
                listed.seconds = spent + time.perf_counter() - started
                manifest.add_weights(partial, listed, name, {
                    f"{index}.{key}": t for key, t in vars(layer).items() if t is not None})
    report(Step(model.config.num_layers, model.config.num_layers + 1, "head"))
    if manifest.OUTER not in listed.files:
        outer = {"embedding": model.embedding, "final_norm": model.final_norm,
                 "inv_freq": model.inv_freq}
        if method.settings.head:
            outer["head"] = method.head(model.head)  # type: ignore[assignment]
        elif model.head is not model.embedding:
            outer["head"] = model.head
        manifest.add_weights(partial, listed, manifest.OUTER, outer)
    folder.add_texts(partial, listed, model)
    listed.seconds = spent + time.perf_counter() - started
    packed = sum(listed.files[name]["packed_bytes"] for name in names)
    listed.sizes = {"parameters": parameters, "bytes": folder.bytes_of(listed),
                    "bits_a_weight": 8 * packed / numbers}
    listed.complete = True
    manifest.write_manifest(partial, listed)


@functools.cache
def code_version() -> str:
    """A fingerprint of the code that decides the numbers: other code may not finish a folder."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


def parameter_count(model: Model) -> int:
    """Numbers of a model in full precision; a tied head is counted once."""
    tensors: list[Any] = [model.embedding, model.final_norm]
    tensors += [model.head] if model.head is not model.embedding else []
    tensors += [t for layer in model.layers for t in vars(layer).values() if t is not None]
    return sum(math.prod(t.shape) for t in tensors)


def matrix_shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """[out, in] of a layer's four matrices."""
    c, q = config, config.num_heads * config.head_dim
    return [(q + 2 * c.num_kv_heads * c.head_dim, c.hidden_size), (c.hidden_size, q),
            (2 * c.intermediate_size, c.hidden_size), (c.hidden_size, c.intermediate_size)]


def matrix_numbers(config: ModelConfig) -> int:
    """Weights in the matrices of all layers."""
    return config.num_layers * sum(out * width for out, width in matrix_shapes(config))


def estimated_bytes(config: ModelConfig, settings: Settings) -> int:
    """About what the folder will need, rather too much than too little."""
    total = 0
    for out, width in matrix_shapes(config):
        if settings.bits > 4 or settings.method == "mixed":
            total += int(out * width * (1.5 if settings.method == "outliers" else 1)) + 4 * out
        else:
            groups = -(-width // min(settings.group or width, width))
            total += out * (-(-width // 128) * 64 + 4 * groups)
    embedding = config.vocab_size * config.hidden_size
    head = embedding + 4 * config.vocab_size if settings.head else 2 * embedding
    texts = 16 << 20 if config.vocab_size > 10_000 else 1 << 20  # tokenizer.json, at most about
    return config.num_layers * (total + 64 * config.hidden_size) + 2 * embedding + head + texts


def _silent(step: Step) -> None:
    """Report nothing."""

