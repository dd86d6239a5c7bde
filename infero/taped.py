"""Decoding from captured steps on any device: buckets, fixed buffers, replay.

The shape of `graphs.Decoder` without a GPU: a step is captured once for each batch size on a tape
(`tape.py`), every length is read from the buffers, and a batch that shrinks is padded. Lab 16 runs
the real model this way, on the learner's `bucket_of`, `fill` and `replay`. A tape saves nothing on
a CPU, where the host carries out each operation itself; it shows what must hold for a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from infero import graphs, runner
from infero import model as model_module
from infero import tape as tape_module
from infero.cache import kv
from infero.cache.kv import KVCache
from infero.kernels import compiled
from infero.model import Batch, Model
from infero.tape import Tape


@dataclass
class TapedDecoder:
    """Greedy decode steps of up to `largest` requests, captured at first use."""

    model: Model
    cache: KVCache
    width: int  # blocks in a row of the block tables
    largest: int
    tapes: dict[int, Tape] = field(default_factory=dict)
    replays: list[tuple[int, int]] = field(default_factory=list)  # (requests, bucket) of each step

    def __post_init__(self) -> None:
        self.sizes = graphs.buckets(self.largest)
        self.places: dict[int, graphs.Buffers] = {}

    def body(self, ids: Tensor, positions: Tensor, slots: Tensor, contexts: Tensor, tables: Tensor
             ) -> Tensor:
        """One step from nothing but tensors: the next token of each row, [bucket] int64."""
        x = F.embedding(ids, self.model.embedding)
        logits = compiled.step(self.model, x, positions, slots, tables, contexts, self.cache,
                               plain=True)
        return logits.argmax(-1)

    def step(self, ragged: runner.Ragged, tables: Sequence[Sequence[int]]) -> list[int]:
        """Replay the step of the smallest bucket that holds the batch: its next tokens."""
        n = len(ragged.ids)
        bucket = graphs.bucket_of(n, self.sizes)
        if bucket is None:
            raise ValueError(f"{n} requests, but the largest captured batch is {self.largest}: "
                             "capture more, or run the step uncaptured.")
        if bucket not in self.places:
            self.places[bucket] = blank(bucket, self.width)
            self.tapes[bucket] = tape_module.capture(self.body, *self.inputs(bucket))
        graphs.fill(self.places[bucket], ragged, tables)
        self.replays.append((n, bucket))
        drawn = tape_module.replay(self.tapes[bucket], *self.inputs(bucket))
        return drawn[:n].tolist()

    def inputs(self, bucket: int) -> list[Tensor]:
        """A bucket's buffers where the model is; on a CPU they are the buffers themselves."""
        return [t.to(self.model.device) for t in tensors(self.places[bucket])]


def blank(bucket: int, width: int) -> graphs.Buffers:
    """Buffers of rows that are all padding: capturing on them writes nothing into the cache."""
    def row(value: int) -> np.ndarray:
        return np.full(bucket, value, dtype=np.int32)

    return graphs.Buffers(row(0), row(0), row(-1), row(0), row(-1),
                          np.zeros((bucket, width), dtype=np.int32))


def tensors(buffers: graphs.Buffers) -> tuple[Tensor, ...]:
    """The buffers as tensors on the same memory; a host that draws each token needs no sources."""
    return tuple(torch.from_numpy(a) for a in (buffers.ids, buffers.positions, buffers.slots,
                                               buffers.contexts, buffers.tables))


@torch.inference_mode()
def greedy(model: Model, prompts: Sequence[Sequence[int]], lengths: Sequence[int],
           block_size: int = 16) -> tuple[list[list[int]], TapedDecoder]:
    """Complete each prompt with so many tokens; the batch shrinks as requests end."""
    longest = [len(p) + n for p, n in zip(prompts, lengths, strict=True)]
    blocks = [-(-n // block_size) for n in longest]
    ends = np.cumsum(blocks).tolist()
    tables = [list(range(end - n, end)) for n, end in zip(blocks, ends, strict=True)]
    cache = kv.empty(model.config, ends[-1], block_size, model.dtype, model.device)
    spans = [runner.Span(list(p), 0, t, True) for p, t in zip(prompts, tables, strict=True)]
    packed = runner.pack(spans, block_size)
    padded = [t + t[-1:] * (max(blocks) - len(t)) for t in tables]
    positions, slots, padded_tables, ids, rows = (
        torch.tensor(numbers, device=model.device) for numbers in (
            packed.positions, packed.slots, padded, packed.ids, packed.rows))
    batch = Batch(positions, slots, padded_tables, block_size, packed.query_lens,
                  packed.context_lens)
    logits = model_module.forward(model, ids, batch, cache, rows)
    outputs = [[token] for token in logits.argmax(-1).tolist()]
    decoder = TapedDecoder(model, cache, max(blocks), len(prompts))
    while live := [i for i, n in enumerate(lengths) if len(outputs[i]) < n]:
        spans = [runner.Span(outputs[i][-1:], len(prompts[i]) + len(outputs[i]) - 1, tables[i],
                             True) for i in live]
        drawn = decoder.step(runner.pack(spans, block_size), [tables[i] for i in live])
        for i, token in zip(live, drawn, strict=True):
            outputs[i].append(token)
    return outputs, decoder
