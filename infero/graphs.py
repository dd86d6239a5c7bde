"""CUDA graphs for decoding: a whole step, drawing included, recorded once and started as one.

Chapter 16 explains it, and Lab 16 writes `bucket_of` and `fill`. A graph replays the same kernels
on the same addresses, so a step is captured for a few batch sizes ("buckets"), reads everything
from fixed buffers, and takes lengths from the device. A smaller batch is padded with rows that have
no context and write nowhere. Steps with a prefill, and batches larger than the largest bucket, run
uncaptured.
"""

from __future__ import annotations

import bisect
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from infero.model import Batch, Model, ModelConfig
from infero.sampling import SamplingParams, SamplingRows

if TYPE_CHECKING:
    from infero.runner import Ragged

ALIGN = 4  # int32s: views begin at multiples of 16 bytes, or Triton would compile another variant
WIDTHS = 16  # block tables are a multiple of so many columns wide, for the same reason
RING = 3  # host copies of a buffer: one is filled while the GPU may still read the others
VARIANTS = ("logits", "greedy", "plain", "filtered")  # what a step ends with
log = logging.getLogger("infero")


# ---------------------------------------------------------------- pieces (Lab 16)


def buckets(largest: int) -> list[int]:
    """Batch sizes to capture: powers of two up to 32, then every 32, and `largest` itself."""
    sizes = [1, 2, 4, 8, 16, *range(32, largest, 32)]
    return [size for size in sizes if size < largest] + [largest]


def bucket_of(n: int, sizes: Sequence[int]) -> int | None:
    """The smallest of the captured batch sizes that holds n requests; None if none does.

    sizes: in ascending order. A batch larger than all of them runs uncaptured.
    """
    at = bisect.bisect_left(sizes, n)
    return sizes[at] if at < len(sizes) else None


@dataclass
class Buffers:
    """The fixed places from which a captured decode step reads: one row a request, int32.

    `sources`: row of the step before whose drawn token is this row's input, or -1: use `ids`.
    """

    ids: np.ndarray  # [bucket]
    positions: np.ndarray  # [bucket]
    slots: np.ndarray  # [bucket], where the token's keys and values go; -1: nowhere
    contexts: np.ndarray  # [bucket], tokens in the cache once this one is written; 0: no request
    sources: np.ndarray  # [bucket]
    tables: np.ndarray  # [bucket, width] block tables


def fill(buffers: Buffers, ragged: Ragged, tables: Sequence[Sequence[int]]) -> None:
    """Write one decode step, a token a request, into the fixed buffers, in place.

    ragged: the packed step; an id below 0 stands for a token not seen yet, drawn in row -1 - id of
    the step before: that row goes to `sources`, which is -1 for a known token. tables: the block
    tables. The rows past the batch are padding, and must be harmless: id 0, position 0, slot -1,
    context 0, source -1. Table entries past a request's blocks may keep what they hold.
    """
    n = len(ragged.ids)
    ids = np.array(ragged.ids, dtype=np.int32)
    buffers.ids[:n], buffers.ids[n:] = np.maximum(ids, 0), 0
    buffers.sources[:n], buffers.sources[n:] = np.maximum(-1 - ids, -1), -1
    buffers.positions[:n], buffers.positions[n:] = ragged.positions, 0
    buffers.slots[:n], buffers.slots[n:] = ragged.slots, -1
    buffers.contexts[:n], buffers.contexts[n:] = ragged.context_lens, 0
    for row, table in enumerate(tables):
        buffers.tables[row, : len(table)] = table


def launches(config: ModelConfig, fused: bool = True) -> int:
    """Kernels that one decode step of one request starts, from the embedding to the drawn token.

    Fused: six a layer (see `kernels/forward.py`), and the embedding, the last rows' head with its
    norm, and the draw. Otherwise one an operation: two norms, four products, RoPE, two cache
    writes, attention, activation and two additions; with norms of q and k those two, and one that
    puts q and k together again.
    """
    layer = 6 if fused else 13 + 3 * config.qk_norm
    return layer * config.num_layers + (3 if fused else 4)


# ---------------------------------------------------------------- staging


@dataclass
class Host:
    """One pinned copy of all that a step reads, and views into it."""

    words: Tensor
    buffers: Buffers
    seeds: np.ndarray  # [bucket] int64
    top_k: np.ndarray  # [bucket] int32
    temperature: np.ndarray  # [bucket] float32
    top_p: np.ndarray
    min_p: np.ndarray
    sent: torch.cuda.Event | None = None


def aligned(n: int, to: int = ALIGN) -> int:
    """n rounded up."""
    return -(-n // to) * to


NAMES = ("ids", "positions", "slots", "contexts", "sources", "top_k")
FLOATS = ("temperature", "top_p", "min_p")


class Stage:
    """Buffers of one bucket: a ring of pinned copies on the host, one copy on the device."""

    def __init__(self, bucket: int, width: int, device: torch.device) -> None:
        self.bucket, self.width = bucket, width
        size = aligned(2 * bucket) + aligned(bucket) * len(NAMES + FLOATS) + bucket * width
        self.device = torch.zeros(size, dtype=torch.int32, device=device)
        cuda = device.type == "cuda"
        self.ring = [self._host(torch.zeros(size, dtype=torch.int32, pin_memory=cuda))
                     for _ in range(RING)]
        self.turn = 0
        parts = self._split(self.device)
        self.tables: Tensor = parts["tables"]
        self.tensors: dict[str, Tensor] = parts
        blank = self.ring[0]
        blank.buffers.slots[:], blank.buffers.sources[:] = -1, -1
        blank.temperature[:], blank.top_p[:] = 1, 1
        self.blank = blank.words.clone()  # no request; nothing is written anywhere
        self.device.copy_(self.blank)

    def _split(self, words: Tensor) -> dict[str, Tensor]:
        """Views by name."""
        b, at = self.bucket, aligned(2 * self.bucket)
        parts = {"seeds": words[: 2 * b].view(torch.int64)}
        for name in NAMES + FLOATS:
            part = words[at : at + b]
            parts[name] = part.view(torch.float32) if name in FLOATS else part
            at += aligned(b)
        parts["tables"] = words[at:].view(b, self.width)
        return parts

    def _host(self, words: Tensor) -> Host:
        a = {name: part.numpy() for name, part in self._split(words).items()}
        buffers = Buffers(a["ids"], a["positions"], a["slots"], a["contexts"], a["sources"],
                          a["tables"])
        return Host(words, buffers, a["seeds"], a["top_k"], a["temperature"], a["top_p"],
                    a["min_p"])

    def next(self) -> Host:
        """The copy that may be written now: the GPU has read what was in it."""
        self.turn = (self.turn + 1) % RING
        host = self.ring[self.turn]
        if host.sent is not None:
            host.sent.synchronize()
        return host

    def send(self, host: Host) -> None:
        """Start the copy to the device."""
        self.device.copy_(host.words, non_blocking=True)
        if self.device.is_cuda:
            host.sent = torch.cuda.Event()
            host.sent.record()

    def rows(self, n: int | None = None) -> SamplingRows:
        """The parameters of n draws, on the device; a token's index is its context's length."""
        names = ("temperature", "top_k", "top_p", "min_p", "seeds", "contexts")
        return SamplingRows(*(self.tensors[name][:n] for name in names))


def set_rows(host: Host, params: Sequence[SamplingParams], seeds: Sequence[int]) -> None:
    """Write the parameters of the draw; padding keeps what it holds, its draw is not used."""
    n = len(params)
    host.seeds[:n] = seeds
    host.top_k[:n] = [min(p.top_k, 2**31 - 1) for p in params]  # any number is allowed there
    host.temperature[:n] = [p.temperature for p in params]
    host.top_p[:n] = [p.top_p for p in params]
    host.min_p[:n] = [p.min_p for p in params]


def variant_of(params: Sequence[SamplingParams]) -> str:
    """The cheapest way to draw that serves all rows."""
    if all(p.temperature == 0 for p in params):
        return "greedy"
    filtered = any(p.temperature > 0 and (p.top_k > 0 or p.top_p < 1 or p.min_p > 0)
                   for p in params)
    return "filtered" if filtered else "plain"


# ---------------------------------------------------------------- captured steps

# step(tokens, batch, rows, variant, out): logits, or the drawn tokens written to `out`
Body = Callable[[Tensor, Batch, SamplingRows, str, Tensor], Tensor]


@dataclass
class Captured:
    """A recorded step: what it ends with stands in `result` after a replay."""

    graph: Any
    result: Tensor


@dataclass
class Decoder:
    """Decode steps as CUDA graphs, captured at first use (or all at once by `capture_all`).

    `make_batch` lays a bucket's device buffers out as a Batch, `body` runs one step on it.
    """

    model: Model
    body: Body
    make_batch: Callable[[Stage, int], Batch]
    drawn: Tensor  # [rows] int64: the tokens of the newest step, read by the next one
    largest: int
    width: int
    learners: Sequence[str] = ()  # functions in the pass that a learner wrote
    stages: dict[int, Stage] = field(default_factory=dict)
    captured: dict[tuple[int, int, str], Captured] = field(default_factory=dict)
    pool: Any = None
    stream: Any = None  # of every capture: cuBLAS keeps a workspace for each stream it meets
    problem: str = ""  # why nothing is captured any more
    capture_s: float = 0.0

    def __post_init__(self) -> None:
        self.sizes = buckets(self.largest)

    def stage(self, bucket: int) -> Stage:
        """The buffers of one bucket."""
        if bucket not in self.stages:
            self.stages[bucket] = Stage(bucket, self.width, self.model.device)
        return self.stages[bucket]

    def step(self, n: int, variant: str, write: Callable[[Host], None]) -> Tensor | None:
        """Run one decode step of n requests; None if it cannot be captured.

        `write` fills the host buffers. Returns logits or tokens of all the bucket's rows.
        """
        bucket = bucket_of(n, self.sizes)
        if bucket is None or self.problem:
            return None
        key = (bucket, 1, variant)
        if key not in self.captured and not self.capture(*key):
            return None
        stage = self.stage(bucket)
        host = stage.next()
        write(host)
        stage.send(host)
        self.captured[key].graph.replay()
        return self.captured[key].result

    def capture(self, bucket: int, queries: int, variant: str) -> bool:
        """Record the step of one bucket; False, with the reason kept, if it cannot be."""
        start_s = time.perf_counter()
        stage = self.stage(bucket)
        batch = self.make_batch(stage, queries)
        ids, rows, out = stage.tensors["ids"], stage.rows(), self.drawn[:bucket]
        kept = self.drawn.clone()  # the next step may be waiting for these
        words = stage.device.clone()
        stage.device.copy_(stage.blank)
        try:
            stream = self.stream = self.stream or torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(stream), torch.inference_mode():
                    self.body(ids, batch, rows, variant, out)  # compiles kernels, makes workspaces
            finally:  # kernels of a pass that broke off still read the blank rows
                torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph, pool=self.pool, stream=stream):
                result = self.body(ids, batch, rows, variant, out)
        except RuntimeError as problem:
            if isinstance(problem, torch.OutOfMemoryError):
                raise
            self.problem = str(problem).splitlines()[0]
            if self.learners:
                self.problem += f" (your {', '.join(self.learners)} in the pass may be the reason)"
            log.warning("Decode steps run uncaptured: %s", self.problem)
            return False
        finally:
            self.drawn.copy_(kept)
            stage.device.copy_(words)
        self.pool = self.pool or graph.pool()
        self.captured[bucket, queries, variant] = Captured(graph, result)
        self.capture_s += time.perf_counter() - start_s
        return True

    def capture_all(self, variants: Sequence[str]) -> None:
        """Record every bucket, the largest first: the others fit into its memory."""
        for variant in variants:
            for bucket in reversed(self.sizes):
                if (bucket, 1, variant) not in self.captured and not self.problem:
                    self.capture(bucket, 1, variant)
