"""What the matrices of a model see on a text: what GPTQ, AWQ, SmoothQuant and Wanda decide by.

A method that rounds or removes weights wants to change a matrix's *output* least, and that depends
on the inputs: a column that always meets a zero may hold anything. A short calibration text is run
through the model one layer at a time, so that only one layer's inputs are kept, and so that a layer
sees what the layers before it, already quantized, really send.

    hidden = embed(model, sequences(tokens))
    for index in range(model.config.num_layers):
        stats = layer_stats(model, index, hidden)    # then change model.layers[index]
        hidden = advance(model, index, hidden)       # through the layer as it is now

Chapters 4 to 6 use it. The order of work is GPTQ's (arXiv:2210.17323).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infero import kernels
from infero import model as model_module
from infero.cache import contiguous
from infero.cache.kv import KVCache
from infero.errors import ConfigError
from infero.kernels import formats
from infero.quant.fold import MATRICES

if TYPE_CHECKING:
    from infero.model import Model

CHUNK = 4096  # tokens that run through a layer at once: bounds the memory of its activations
ROWS = 256  # inputs kept as they are
LOUD = 20.0  # times the median length of an input: longer ones count in a Hessian as that long


@dataclass(repr=False, eq=False)
class Stats:
    """What one matrix saw: numbers over all tokens, and some of its inputs themselves."""

    hessian: Tensor | None  # [in, in] float32, the mean over tokens of x x^T, long x shortened
    mean_abs: Tensor  # [in] float32
    max_abs: Tensor  # [in] float32
    rows: Tensor  # [at most ROWS, in] float32, inputs of tokens drawn at random
    tokens: int

    @property
    def mean_square(self) -> Tensor:
        """The mean of x[k] ** 2: [in]. Its root is what Wanda weighs a column by."""
        return self.rows.pow(2).mean(0) if self.hessian is None else self.hessian.diagonal()


def sequences(tokens: Sequence[int] | Tensor, length: int = 512, count: int = 64,
              seed: int = 0) -> Tensor:
    """`count` windows of the calibration text that do not overlap: [count, length] int64.

    They are drawn at random, and kept in the order of the text. Raises ConfigError where the text
    is too short.
    """
    ids = torch.as_tensor(tokens, dtype=torch.int64).flatten()
    if length < 1 or count < 1:
        raise ConfigError(f"{count} windows of {length} tokens were asked for; both numbers must "
                          "be at least 1.")
    windows = len(ids) // length
    if windows < count:
        raise ConfigError(f"The calibration text has {len(ids):,} tokens; {count} windows of "
                          f"{length} need {count * length:,}. Give a longer text, or ask for at "
                          f"most {windows * length:,} tokens.")
    drawn = torch.randperm(windows, generator=torch.Generator().manual_seed(seed))[:count]
    return ids[: windows * length].view(windows, length)[drawn.sort().values]


def embed(model: Model, ids: Tensor) -> Tensor:
    """The hidden states before layer 0: ids [n, length] -> [n, length, hidden]."""
    return F.embedding(ids.to(model.device), model.embedding)


def advance(model: Model, index: int, hidden: Tensor) -> Tensor:
    """Hidden states [n, length, hidden] through layer `index` as it is now in `model.layers`."""
    with torch.no_grad(), kernels.using(kernels="auto"):
        out = torch.empty_like(hidden)
        for part, result in zip(*(_chunks(t) for t in (hidden, out)), strict=True):
            result.copy_(_block(model, index, part))
    return out


def layer_stats(model: Model, index: int, hidden: Tensor, hessian: bool = True,
                names: Sequence[str] = MATRICES, seed: int = 0) -> dict[str, Stats]:
    """What the matrices of layer `index` see when hidden [n, length, hidden] comes in.

    names: which of "qkv", "o", "gate_up", "down"; the layer is left after the last of them, so
    that asking for one at a time, each after the ones before it were quantized, costs little.
    hessian: False leaves out the only large thing.
    """
    layer = model.layers[index]
    watches = {name: _Watch(getattr(layer, name)) for name in names}
    last = max(watches, key=MATRICES.index)
    watches[last].last = True
    layers = list(model.layers)
    layers[index] = dataclasses.replace(layer, **watches)  # type: ignore[arg-type]
    watched = dataclasses.replace(model, layers=layers)
    tokens, width = hidden.shape[0] * hidden.shape[1], hidden.shape[1]
    kept = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))[:ROWS].sort()[0]
    gather = {name: _Gather(tokens, hessian, kept.to(hidden.device)) for name in names}
    first = 0
    with torch.no_grad(), kernels.using(kernels="auto"):
        for part in _chunks(hidden):
            try:
                _block(watched, index, part)
            except _Enough:
                pass
            for name, watch in watches.items():
                gather[name].add(watch.seen, first)
            first += len(part) * width
    return {name: gathered.stats() for name, gathered in gather.items()}


def stats_of(x: Tensor, hessian: bool = True, seed: int = 0) -> Stats:
    """The same for a matrix whose inputs are at hand: x [tokens, in]."""
    kept = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:ROWS].sort()[0]
    gathered = _Gather(len(x), hessian, kept.to(x.device))
    for first in range(0, len(x), CHUNK):
        gathered.add(x[first : first + CHUNK], first)
    return gathered.stats()


# ---------------------------------------------------------------- watching a product


class _Enough(Exception):
    """The last matrix that was asked for has been seen: nothing behind it need run."""


class _Watch(formats._Format):
    """A weight that remembers what it was multiplied with."""

    def __init__(self, weight: Any) -> None:
        self.weight, self.seen, self.last = weight, torch.empty(0), False

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [tokens, in] times the weight transposed, as without the watch."""
        self.seen = x
        if self.last:
            raise _Enough
        return kernels.linear(x, self.weight, bias)


class _Gather:
    """Adds up one matrix's statistics, chunk by chunk."""

    def __init__(self, tokens: int, hessian: bool, kept: Tensor) -> None:
        self.tokens, self.hessian, self.kept = tokens, hessian, kept
        self.rows: list[Tensor] = []
        self.limit: Tensor | None = None  # of an input's length, from the first chunk
        self.sums: list[Tensor] = []  # of x x^T (or nothing), of |x|, and the largest |x|

    def add(self, x: Tensor, first: int) -> None:
        """x: [tokens of the chunk, in]; first: the number of its first token."""
        wide = x.float()
        size = wide.abs()
        new = [size.sum(0), size.amax(0)]
        if not self.sums:
            self.sums = [torch.zeros_like(new[0]), new[1]]
            if self.hessian:
                self.sums.append(wide.new_zeros(x.shape[1], x.shape[1]))
        self.sums[0] += new[0]
        self.sums[1] = torch.maximum(self.sums[1], new[1])
        if self.hessian:
            quiet = wide * self.weights(wide)
            self.sums[2].addmm_(quiet.t(), quiet, alpha=1 / self.tokens)
        mine = (self.kept >= first) & (self.kept < first + len(x))
        self.rows.append(wide[self.kept[mine] - first])

    def weights(self, wide: Tensor) -> Tensor:
        """What each token of x [tokens, in] is multiplied with in the Hessian: [tokens, 1].

        The first token of a text collects attention in many models, and some matrix meets it with
        an input hundreds of times longer than any other (arXiv:2402.17762). In a plain mean it
        would be all that counts, though the norm behind takes its length away again.
        """
        length = wide.norm(dim=1, keepdim=True)
        if self.limit is None:
            self.limit = LOUD * length.median()
        return torch.where(length > self.limit, self.limit / length, 1.0)

    def stats(self) -> Stats:
        total, largest = self.sums[:2]
        return Stats(self.sums[2] if self.hessian else None, total / self.tokens, largest,
                     torch.cat(self.rows), self.tokens)


# ---------------------------------------------------------------- one layer


def _chunks(hidden: Tensor) -> tuple[Tensor, ...]:
    """The sequences, some at a time."""
    return hidden.split(max(1, CHUNK // hidden.shape[1]))


def _block(model: Model, index: int, hidden: Tensor) -> Tensor:
    """One block over whole sequences [n, length, hidden], each a request with nothing cached."""
    n, length, width = hidden.shape
    cache = _cache(model, n, length)
    batch = contiguous.next_batch(cache, [0] * n, [length] * n)
    return model_module.block(model, index, hidden.reshape(-1, width), batch, cache).view_as(hidden)


def _cache(model: Model, n: int, length: int) -> KVCache:
    """A cache with the memory of one layer, which answers to every layer's number."""
    one = contiguous.allocate(dataclasses.replace(model.config, num_layers=1), n, length,
                              model.dtype, model.device)
    layers = (model.config.num_layers, -1, -1, -1)
    return KVCache(one.k.expand(layers), one.v.expand(layers), one.block_size)

