"""How good a model is, and how far a smaller one has moved from it.

Perplexity asks how well the model predicts a text. Two sharper questions compare a model with the
one it was made from, at every position of the text: how far its whole distribution over the next
token lies from the other's (KL divergence, in nats), and how often the two would choose the same
token. Chapters 4 and 5 explain what each can and cannot see.

The text is the book's own prose, frozen in infero/data/text with its source and hash: what
calibrates a method is never what judges it. Logits are made some rows at a time, and a reference's
log-probabilities are kept at two bytes a number, so that memory stays bounded.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from infero import kernels
from infero import model as models
from infero.cache import contiguous
from infero.errors import ConfigError, ParameterError
from infero.model import Model
from infero.tokenizer import Tokenizer

Split = Literal["calibration", "evaluation"]
SPLITS = ("calibration", "evaluation")
ROWS = 256  # rows of logits held at once on a CPU
GPU_ROWS = 1024  # on a GPU
BLOCK = 64  # neighbouring tokens whose mean is one sample of a standard error
IN_MEMORY = 2**30  # bytes of a reference; what is larger lies in a file
Progress = Callable[[int, int], None]  # (tokens done, tokens in all)


# ---------------------------------------------------------------- the text


@cache
def text(split: Split = "evaluation") -> str:
    """The shipped English text: "calibration" (45k SmolLM2 tokens) or "evaluation" (28k)."""
    if split not in SPLITS:
        raise ParameterError(f"There is no text {split!r}; there are {' and '.join(SPLITS)}.")
    return (Path(__file__).parent / "data" / "text" / f"{split}.txt").read_text(encoding="utf-8")


def token_ids(tokenizer: Tokenizer | None, split: Split = "evaluation",
              count: int | None = None) -> list[int]:
    """The first `count` token ids of a shipped text; None takes all of it."""
    if tokenizer is None:
        raise ConfigError("The model has no tokenizer, so it cannot read the text; load it from a "
                          "folder with tokenizer.json or from a GGUF file.")
    ids = tokenizer.encode(text(split))
    if count is not None and not 0 < count <= len(ids):
        raise ParameterError(f"{count} tokens were asked for; the {split} text has {len(ids)} with "
                             "this tokenizer. Ask for 1 to that many.")
    return ids[:count]


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Score:
    """Means over `tokens` predicted tokens, each with its standard error.

    nll is in nats a token. kl is KL(reference || model) in nats a token, top1 the share of
    positions where both put the same token first; nll_change is this model's nll minus the
    reference's. These are paired, token by token, so that their errors are much smaller than those
    of two separate perplexities; without a reference they are None. An error is NaN where there are
    too few tokens for one.
    """

    tokens: int
    nll: float
    nll_error: float
    kl: float | None = None
    kl_error: float | None = None
    top1: float | None = None
    top1_error: float | None = None
    nll_change: float | None = None
    nll_change_error: float | None = None

    @property
    def perplexity(self) -> float:
        """exp(nll): as unsure as a draw among so many equally likely tokens."""
        return math.exp(min(self.nll, 700.0))

    @property
    def perplexity_error(self) -> float:
        """Standard error of the perplexity, to first order."""
        return self.perplexity * self.nll_error

    @property
    def perplexity_ratio(self) -> float | None:
        """This model's perplexity over the reference's."""
        return None if self.nll_change is None else math.exp(min(self.nll_change, 700.0))


@dataclass(frozen=True, repr=False)
class Reference:
    """What a model predicted at every position of a text, kept to compare others with it."""

    ids: Tensor  # [tokens] int64: the text
    length: int  # tokens of a window
    logprobs: Tensor  # [tokens - 1, vocab] float16, in memory or in a file
    nll: Tensor  # [tokens - 1] float32, of the tokens that came
    best: Tensor  # [tokens - 1] int64, the likeliest tokens

    def score(self) -> Score:
        """The reference's own perplexity."""
        return _summary(self.nll)


def evaluate(model: Model, ids: Sequence[int] | Tensor, reference: Model | Reference | None = None,
             *, length: int = 512, batch: int = 4, progress: Progress | None = None) -> Score:
    """Score a model on a text, alone or beside a reference.

    ids: [tokens] token ids. The text is cut into windows of `length` inputs, `batch` of which go
    through the model together; every token but the first is predicted once, from what stands before
    it in its window. reference: the model to compare with, or what `reference` kept of it. The
    numbers do not depend on `batch`. progress(done, all) is called after each batch.
    """
    text_ids = _checked(model, ids, length, batch)
    if isinstance(reference, Model) and reference.config.vocab_size != model.config.vocab_size:
        raise ParameterError(
            f"The model has {model.config.vocab_size} tokens and the reference "
            f"{reference.config.vocab_size}: only models of one vocabulary can be compared.")
    if isinstance(reference, Reference):
        _check_same(model, reference, text_ids, length)
    columns: dict[str, list[Tensor]] = {"nll": [], "kl": [], "same": [], "change": []}
    done = 0
    for window in _windows(text_ids, length, batch):
        targets = torch.cat([w[1:] for w in window])
        mine = hidden(model, window)
        theirs = hidden(reference, window) if isinstance(reference, Model) else None
        for part in torch.arange(len(targets)).split(_rows(model)):
            low, high = int(part[0]), int(part[-1]) + 1
            wanted = targets[low:high].to(mine.device)
            logp = logprobs(model, mine[low:high])
            nll = _picked(logp, wanted)
            columns["nll"].append(nll.cpu())
            if reference is None:
                continue
            if isinstance(reference, Reference):
                at = slice(done + low, done + high)
                kept = reference.logprobs[at].to(logp.device).float().log_softmax(-1)
                other_nll, best = (t[at].to(logp.device) for t in (reference.nll, reference.best))
            else:
                assert theirs is not None
                kept = logprobs(reference, theirs[low:high]).to(logp.device)
                other_nll, best = _picked(kept, wanted), kept.argmax(-1)
            columns["kl"].append(kl_divergence(kept, logp).cpu())
            columns["same"].append((logp.argmax(-1) == best).float().cpu())
            columns["change"].append((nll - other_nll).cpu())
        done += len(targets)
        if progress is not None:
            progress(done, len(text_ids) - 1)
    joined = [torch.cat(parts) for parts in columns.values() if parts]
    return _summary(*joined)


def reference(model: Model, ids: Sequence[int] | Tensor, *, length: int = 512, batch: int = 4,
              progress: Progress | None = None, folder: str | os.PathLike[str] | None = None
              ) -> Reference:
    """Run a model once and keep what it predicts, so that many others can be compared with it.

    As `evaluate`. Two bytes a position and a token of the vocabulary are kept: on a GPU in its
    memory, else in the host's up to 1 GiB and beyond that in a file in `folder` (default: the
    system's folder for temporary files) that goes when the reference goes.
    """
    text_ids = _checked(model, ids, length, batch)
    count, vocab = len(text_ids) - 1, model.config.vocab_size
    kept = _room(count, vocab, model.device, folder)
    nll, best = torch.empty(count), torch.empty(count, dtype=torch.int64)
    done = 0
    for window in _windows(text_ids, length, batch):
        targets = torch.cat([w[1:] for w in window])
        states = hidden(model, window)
        for part in torch.arange(len(targets)).split(_rows(model)):
            low, high = int(part[0]), int(part[-1]) + 1
            at = slice(done + low, done + high)
            logp = logprobs(model, states[low:high])
            nll[at] = _picked(logp, targets[low:high].to(logp.device)).cpu()
            best[at] = logp.argmax(-1).cpu()
            kept[at] = logp.clamp(min=-6e4).to(kept.device, torch.float16)
        done += len(targets)
        if progress is not None:
            progress(done, count)
    return Reference(text_ids, length, kept, nll, best)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats of each row of two tables of log-probabilities [rows, vocab]: [rows]."""
    terms = p.exp() * (p - q)
    return terms.masked_fill(p == -math.inf, 0.0).sum(-1)  # 0 log 0 is 0


# ---------------------------------------------------------------- running the model


@torch.inference_mode()
def hidden(model: Model, windows: Sequence[Tensor]) -> Tensor:
    """States after the last layer at every position of some windows, laid end to end.

    windows: [tokens + 1] ids each, whose last one is only predicted. Returns [tokens, hidden].
    """
    lens = [len(w) - 1 for w in windows]
    tokens = torch.cat([w[:-1] for w in windows]).to(model.device)
    room = max(16, 1 << (max(lens) - 1).bit_length())  # the kernels take powers of two
    store = contiguous.allocate(model.config, len(lens), room, model.dtype, model.device)
    where = contiguous.next_batch(store, [0] * len(lens), lens)
    x = kernels.embed(tokens, model.embedding)
    for index in range(model.config.num_layers):
        x = models.block(model, index, x, where, store)
    return x


@torch.inference_mode()
def logprobs(model: Model, states: Tensor) -> Tensor:
    """Log-probabilities of the next token, [rows, vocab] float32, of states [rows, hidden]."""
    normed = kernels.rms_norm(states, model.final_norm, model.config.norm_eps)
    return models.linear(normed, model.head).float().log_softmax(-1)


def _rows(model: Model) -> int:
    return GPU_ROWS if model.device.type == "cuda" else ROWS


def _windows(ids: Tensor, length: int, batch: int) -> Iterator[list[Tensor]]:
    """Lists of up to `batch` windows; each brings its inputs and, one further, its targets."""
    starts = range(0, len(ids) - 1, length)
    for first in range(0, len(starts), batch):
        yield [ids[s : s + length + 1] for s in starts[first : first + batch]]


def _picked(logp: Tensor, targets: Tensor) -> Tensor:
    return -logp.gather(1, targets[:, None])[:, 0]


def _room(count: int, vocab: int, device: torch.device, folder: str | os.PathLike[str] | None
          ) -> Tensor:
    """Space for [count, vocab] float16 numbers."""
    size = 2 * count * vocab
    if device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] // 2:
        return torch.empty(count, vocab, dtype=torch.float16, device=device)
    if size <= IN_MEMORY and folder is None:
        return torch.empty(count, vocab, dtype=torch.float16)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".logprobs") as file:
        # mapped, the pages stay after the name is gone, and the space is free when the tensor is
        os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else None
        return torch.from_file(file.name, shared=True, size=count * vocab,
                               dtype=torch.float16).view(count, vocab)


# ---------------------------------------------------------------- checks and sums


def _checked(model: Model, ids: Sequence[int] | Tensor, length: int, batch: int) -> Tensor:
    found = torch.as_tensor(ids, dtype=torch.int64).cpu().flatten()
    if len(found) < 2:
        raise ParameterError(f"A text of {len(found)} tokens predicts nothing; give at least 2.")
    if not 1 <= length <= model.config.max_context:
        raise ParameterError(f"length is {length}; the model takes 1 to "
                             f"{model.config.max_context} tokens.")
    if batch < 1:
        raise ParameterError(f"batch is {batch}; it must be at least 1.")
    if int(found.min()) < 0 or int(found.max()) >= model.config.vocab_size:
        raise ParameterError(f"The text holds token {int(found.max())}, but the model has ids 0 to "
                             f"{model.config.vocab_size - 1}: use the model's own tokenizer.")
    return found


def _check_same(model: Model, kept: Reference, ids: Tensor, length: int) -> None:
    if kept.length != length or not torch.equal(kept.ids, ids):
        raise ParameterError(
            f"The reference was taken on {len(kept.ids)} tokens in windows of {kept.length}, and "
            f"the model would run {len(ids)} in windows of {length}: both must run the same text.")
    if kept.logprobs.shape[1] != model.config.vocab_size:
        raise ParameterError(
            f"The model has {model.config.vocab_size} tokens and the reference "
            f"{kept.logprobs.shape[1]}: only models of one vocabulary can be compared.")


def _mean(column: Tensor) -> tuple[float, float]:
    """The mean of a column [tokens] and its standard error.

    Neighbouring tokens are alike (a hard word makes the next ones hard), so the samples are
    the means of blocks of neighbours, not the tokens themselves.
    """
    wide = column.double()
    size = BLOCK if len(wide) >= 8 * BLOCK else 1
    blocks = wide[: len(wide) // size * size].view(-1, size).mean(1)
    error = float(blocks.std() / math.sqrt(len(blocks))) if len(blocks) > 1 else math.nan
    return float(wide.mean()), error


def _summary(nll: Tensor, kl: Tensor | None = None, same: Tensor | None = None,
             change: Tensor | None = None) -> Score:
    alone = len(nll), *_mean(nll)
    if kl is None or same is None or change is None:
        return Score(*alone)
    return Score(*alone, *_mean(kl), *_mean(same), *_mean(change))
