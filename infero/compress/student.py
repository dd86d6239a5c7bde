"""The trained student: a draft for SmolLM2-135M-Instruct that comes with the package.

    target = infero.load()
    student = load(target)                  # an ordinary Model; chapter 12 drafts with it
    ids = vocabulary(8192)                  # the tokens the target writes most, most frequent first
    short = shortlisted(student, ids)       # its logits' column i is token ids[i]

The file holds the student's own layers only, one signed byte a weight with a scale for each output:
embedding and head are the target's own objects. For a small model the head is most of a step's
bytes, so a draft may look at a shortlist of tokens instead: what speculative decoding outputs stays
exact, whatever the draft's distribution is (arXiv:2211.17192), and only the tokens that are not on
the list can no longer be guessed. Chapter 6 tells how the student was trained, chapter 12 uses it;
`benchmarks/student.py` trains it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from infero.errors import ConfigError, LoadError
from infero.kernels import formats
from infero.model import Layer, Model

FOLDER = Path(__file__).resolve().parent.parent / "data" / "student"
FILE = FOLDER / "smollm2-135m-draft.safetensors"
FORMAT = "1"
LIMIT_BYTES = 6 << 20  # of the file: it is committed
SHORTLIST = 16384  # token ids kept in the file
PROBE = (16, 16)  # rows and columns of the embedding by which a target is recognised
SAME = ("architecture", "vocab_size", "hidden_size", "num_heads", "num_kv_heads", "head_dim",
        "rope_theta")  # what target and student must have in common
MATRICES = ("qkv", "o", "gate_up", "down")
NORMS = ("input_norm", "post_norm")
Weights = Literal["dense", "int8"]


@dataclass(frozen=True)
class Facts:
    """What the file says about itself."""

    name: str
    target: str
    layers: int
    intermediate: int
    parameters: int
    config: Mapping[str, Any]  # of SAME
    training: Mapping[str, Any]


# ---------------------------------------------------------------- writing


def size_of(layers: int, intermediate: int, target: Model) -> int:
    """Bytes that a student of this shape takes on disk, the header left out."""
    c = target.config
    q, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    weights = c.hidden_size * (2 * q + 2 * kv + 3 * intermediate)
    scales = 4 * (q + 2 * kv + 2 * c.hidden_size + 2 * intermediate)
    norms = 2 * 2 * c.hidden_size
    return layers * (weights + scales + norms) + 2 * c.hidden_size + 4 * SHORTLIST


def parameters_of(model: Model) -> int:
    """Weights of the layers and of the final norm: what the student does not share."""
    return model.final_norm.numel() + sum(
        getattr(layer, name).shape.numel() for layer in model.layers for name in MATRICES + NORMS)


def save(model: Model, path: Path, ids: Tensor, training: Mapping[str, Any],
         extra: Mapping[str, Tensor] | None = None) -> int:
    """Write a student; returns the file's bytes.

    ids: [entries] int64, the shortlist, most frequent first. training: facts for the header. Every
    matrix is rounded to eight bits, one scale a row; so are further ones in `extra`.
    """
    from safetensors.torch import save_file

    c = model.config
    tensors = {"final_norm": model.final_norm.to(torch.bfloat16),
               "vocabulary": ids[:SHORTLIST].to(torch.int32), "probe": _probe(model)}
    for index, layer in enumerate(model.layers):
        for name in NORMS:
            tensors[f"{index}.{name}"] = getattr(layer, name).to(torch.bfloat16)
    matrices = {f"{index}.{name}": getattr(layer, name) for index, layer in enumerate(model.layers)
                for name in MATRICES}
    for name, matrix in {**matrices, **(extra or {})}.items():
        rounded = formats.quantize(matrix.detach().float(), "int8")
        assert isinstance(rounded, formats.Int8Weight)
        tensors[f"{name}.values"], tensors[f"{name}.scales"] = rounded.values, rounded.scales
    about = dict(format=FORMAT, name=path.stem, target=model.name,
                 layers=c.num_layers, intermediate=c.intermediate_size,
                 parameters=parameters_of(model), training=dict(training),
                 config={name: getattr(c, name) for name in SAME})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial,
              {"infero": json.dumps(about)})
    partial.replace(path)
    size = path.stat().st_size
    if size > LIMIT_BYTES and model.config.hidden_size >= 512:
        raise ConfigError(f"{path.name} takes {size:,} bytes, above the {LIMIT_BYTES:,} that the "
                          "repository carries; choose fewer layers or neurons.")
    return size


def _probe(model: Model) -> Tensor:
    rows, columns = PROBE
    vocab, hidden = model.embedding.shape
    where = torch.arange(rows, device=model.device) * (vocab // rows)
    return model.embedding[where][:, : min(columns, hidden)].float().cpu()


# ---------------------------------------------------------------- reading


def load(target: Model, path: str | Path | None = None, *, weights: Weights = "dense") -> Model:
    """The trained student of this target, on its device and in its dtype.

    It shares the target's `embedding`, `head` and tokenizer, the very objects. weights: "dense" has
    plain tensors, "int8" keeps the bytes of the file (`formats.Int8Weight`). Raises LoadError where
    there is no file, and ConfigError where the target is not the model it was trained for.
    """
    if weights not in ("dense", "int8"):
        raise ConfigError(f"weights is {weights!r}; known: 'dense', 'int8'.")
    place = Path(path) if path is not None else FILE
    about, tensors = facts(place), _tensors(place)
    _fit(about, tensors["probe"], target, place)

    def plain(name: str) -> Tensor:
        return tensors[name].to(target.device, target.dtype)

    def matrix(name: str) -> Any:
        packed = formats.Int8Weight(tensors[f"{name}.values"], tensors[f"{name}.scales"],
                                    target.dtype).to(target.device)
        return packed if weights == "int8" else packed.dequantize()

    try:
        layers = [Layer(**{name: plain(f"{i}.{name}") for name in NORMS},
                        **{name: matrix(f"{i}.{name}") for name in MATRICES})
                  for i in range(about.layers)]
        norm = plain("final_norm")
    except KeyError as missing:
        raise LoadError(f"{place} lacks the tensor {missing}; it is damaged: restore it with git "
                        "checkout, or train it again.") from None
    config = replace(target.config, num_layers=about.layers, sliding_window=None,
                     sliding_layers=None, intermediate_size=about.intermediate)
    return replace(target, config=config, layers=layers, final_norm=norm, name=about.name)


def extra(path: str | Path, name: str, target: Model) -> Tensor:
    """A further matrix of a student's file, in the target's dtype and on its device."""
    tensors = _tensors(Path(path))
    if f"{name}.values" not in tensors:
        raise ConfigError(f"{Path(path).name} has no matrix {name!r}: it is a plain student, for "
                          "student.load.")
    packed = formats.Int8Weight(tensors[f"{name}.values"], tensors[f"{name}.scales"], target.dtype)
    return packed.to(target.device).dequantize()


def vocabulary(count: int | None = None, path: str | Path | None = None) -> Tensor:
    """The tokens that the target writes most often, most frequent first: [count] int64."""
    place = Path(path) if path is not None else FILE
    found = _tensors(place)["vocabulary"].long()
    if count is not None and not 1 <= count <= len(found):
        raise ConfigError(f"A shortlist of {count} tokens was asked for; {place.name} holds "
                          f"{len(found)}: choose 1 to that many.")
    return found[:count]


def shortlisted(model: Model, ids: Tensor | Sequence[int]) -> Model:
    """The model with a head of these rows alone: column i of its logits is token ids[i].

    ids: [entries] token ids, all different. The rows are copied: they are to lie side by side.
    """
    chosen = torch.as_tensor(ids, dtype=torch.int64, device=model.device)
    vocab = model.config.vocab_size
    if not len(chosen) or int(chosen.min()) < 0 or int(chosen.max()) >= vocab:
        raise ConfigError(f"The shortlist must be token ids from 0 to {vocab - 1}, at least one.")
    if len(chosen.unique()) != len(chosen):
        raise ConfigError("A token is on the shortlist twice; its probability would count twice.")
    head: Any = model.head
    if isinstance(head, Tensor):
        rows: Any = head[chosen]
    elif isinstance(head, (formats.Int8Weight, formats.Fp8Weight)):
        rows = replace(head, values=head.values[chosen], scales=head.scales[chosen])
    else:
        raise ConfigError(f"A head in {type(head).__name__} has no rows to choose from; load the "
                          "target with head=False, or in int8.")
    return replace(model, head=rows)


def facts(path: str | Path | None = None) -> Facts:
    """What a student's file says about itself."""
    from safetensors import safe_open

    place = Path(path) if path is not None else FILE
    if not place.is_file():
        raise LoadError(f"There is no trained student at {place}; restore it with git checkout, or "
                        "train it: python -m benchmarks.student")
    try:
        with safe_open(place, framework="pt") as file:
            about = json.loads((file.metadata() or {})["infero"])
        if about.pop("format") != FORMAT:
            raise LoadError(f"{place} has another format than {FORMAT}, which this version reads; "
                            "train the student again: python -m benchmarks.student")
        return Facts(**about)
    except LoadError:
        raise
    except Exception as error:  # SafetensorError, KeyError, JSON …
        raise LoadError(f"{place} is no student of infero's ({type(error).__name__}: {error}); "
                        "restore it with git checkout.") from error


@cache
def _read(path: Path, _mtime_ns: int) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _tensors(path: Path) -> dict[str, Tensor]:
    facts(path)  # its errors say what is wrong with the file
    return _read(path, path.stat().st_mtime_ns)


def _fit(about: Facts, probe: Tensor, target: Model, path: Path) -> None:
    for name, value in about.config.items():
        found = getattr(target.config, name)
        if found != value:
            raise ConfigError(f"{path.name} was trained for {about.target} with {name} {value}, "
                              f"but this target ({target.name or 'unnamed'}) has {found}; load "
                              "that model, or train a student for this one: python -m "
                              "benchmarks.student --model …")
    mine = _probe(target)
    if mine.shape != probe.shape or not torch.allclose(mine, probe, rtol=0.05, atol=0.01):
        raise ConfigError(f"{path.name} was trained for {about.target}; this target "
                          f"({target.name or 'unnamed'}) has the same shape but other weights, and "
                          "the student reads them: load that model.")


# ---------------------------------------------------------------- what a draft is worth


def tokens_a_pass(accepted: Tensor, lengths: Sequence[int], draft: int) -> float:
    """Tokens that one pass of the target gives on these texts, with drafts of `draft` tokens.

    accepted: [texts, length], how probably each token of the target's own text is drafted and
    accepted there: min(1, q / p) of the token that came, or for greedy texts 1 where the draft says
    the same. lengths: how many count. A pass drafts from where the one before ended; it gives the
    accepted drafts and one token of the target's. Exact over all ways it may go, no dice.
    """
    kept = accepted.double().cpu()
    texts, longest = kept.shape
    ends = torch.as_tensor(lengths, dtype=torch.int64)
    starts = torch.zeros(texts, longest + draft + 1, dtype=torch.float64)
    starts[:, 0] = 1  # how probably a pass begins at each place
    passes = tokens = 0.0
    for at in range(longest):
        weight = starts[:, at] * (at + draft < ends)  # the pass has room for all it may give
        passes += float(weight.sum())
        alive = weight
        for given in range(1, draft + 1):
            chance = kept[:, min(at + given - 1, longest - 1)]
            stops = alive * (1 - chance)  # this draft is refused: `given` tokens in all
            starts[:, at + given] += stops
            tokens += given * float(stops.sum())
            alive = alive * chance
        starts[:, at + draft + 1] += alive
        tokens += (draft + 1) * float(alive.sum())
    return tokens / passes if passes else 0.0
