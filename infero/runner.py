"""The runner: carries out a plan on the device, and is the only part of the engine with tensors.

Chapter 10 explains `pack`, which lays the new tokens of all requests end to end, so that one
forward pass serves them all without padding (selective batching, Orca, OSDI 2022).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infero import kernels
from infero import model as model_module
from infero.cache import kv
from infero.cache import pool as pool_module
from infero.model import Batch, Model
from infero.request import Plan


@dataclass
class Span:
    """New tokens of one request, the first at position `start`; `samples`: the next is wanted."""

    tokens: list[int]
    start: int
    block_table: list[int]
    samples: bool


@dataclass
class Ragged:
    """Spans end to end: one entry a token, one a span, one a row of logits."""

    ids: list[int]  # [tokens]
    positions: list[int]  # [tokens], of each token in its own request
    slots: list[int]  # [tokens], where its keys and values go
    query_lens: list[int]  # [spans], new tokens
    context_lens: list[int]  # [spans], tokens in the cache once these are written
    rows: list[int]  # index of the last token of each span that samples


def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    """Lay the new tokens of all spans end to end, in the order given, without padding.

    A token's position counts within its own request, from span.start on; its slot is where the
    request's block table puts that position. context_lens: tokens in the cache once the new ones
    are written. rows: for each span that samples, the index of its last token in the whole batch,
    the one whose logits give the next token. The spans are left unchanged.
    """
    ragged = Ragged([], [], [], [], [], [])
    for span in spans:
        n = len(span.tokens)
        ragged.ids += span.tokens
        ragged.positions += range(span.start, span.start + n)
        ragged.slots += pool_module.slots_of(span.block_table, span.start, n, block_size)
        ragged.query_lens.append(n)
        ragged.context_lens.append(span.start + n)
        if span.samples:
            ragged.rows.append(len(ragged.ids) - 1)
    return ragged


class Runner:
    """A model with its paged cache, and a host cache where blocks can be swapped to."""

    def __init__(self, model: Model, num_blocks: int, block_size: int, host_blocks: int = 0
                 ) -> None:
        self.model, self.block_size = model, block_size
        kernels.prepare(model)
        make, config = kv.empty, model.config
        self.cache = make(config, num_blocks, block_size, model.dtype, model.device)
        self.host = make(config, host_blocks, block_size, model.dtype, "cpu")
        if model.device.type == "cuda" and host_blocks:  # pinned memory copies without waiting
            self.host.k, self.host.v = self.host.k.pin_memory(), self.host.v.pin_memory()

    def execute(self, plan: Plan) -> Tensor:
        """Make the plan's copies, run its tokens: float32 logits [sampling entries, vocab]."""
        self._copy(plan)
        spans = []
        for entry in plan.entries:
            request, end = entry.request, entry.start + entry.n
            known = request.tokens + request.drafts if entry.drafts else request.tokens
            spans.append(Span(known[entry.start : end], entry.start, request.block_table,
                              entry.samples))
        self._blank(spans)
        ragged, device = pack(spans, self.block_size), self.model.device
        longest = max(len(span.block_table) for span in spans)
        tables = [s.block_table + s.block_table[-1:] * (longest - len(s.block_table))
                  for s in spans]
        lists = (ragged.ids, ragged.positions, ragged.slots, ragged.rows)
        ids, positions, slots, rows = (self._tensor(values) for values in lists)
        batch = Batch(positions, slots, torch.tensor(tables).to(device, non_blocking=True),
                      self.block_size, ragged.query_lens, ragged.context_lens)
        return model_module.forward(self.model, ids, batch, self.cache, rows)

    def _tensor(self, values: list[int]) -> Tensor:
        host = torch.tensor(values, dtype=torch.int64)
        return host if self.model.device.type == "cpu" else host.to(self.model.device)

    @torch.inference_mode()
    def _blank(self, spans: Sequence[Span]) -> None:
        """Zero the blocks that this step begins and does not fill.

        Attention reads whole blocks and masks what is not there yet; a mask turns any number into
        nothing, but not the infinity or NaN that a former owner may have left.
        """
        begun = []
        for span in spans:
            end = span.start + len(span.tokens)
            last = (end - 1) // self.block_size
            if end % self.block_size and last * self.block_size >= span.start:
                begun.append(span.block_table[last])
        if begun:
            ids = self._tensor(begun)
            for t in (self.cache.k, self.cache.v):
                t.unflatten(1, (-1, self.block_size)).index_fill_(1, ids, 0)

    @torch.inference_mode()
    def _copy(self, plan: Plan) -> None:
        ends = {"cow": (self.cache, self.cache), "out": (self.cache, self.host),
                "in": (self.host, self.cache)}
        for kind, copies in itertools.groupby(plan.copies, key=lambda copy: copy.kind):
            kv.copy_blocks(*ends[kind], [(copy.source, copy.target) for copy in copies])
