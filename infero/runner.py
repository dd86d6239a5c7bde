"""The runner: carries out a plan on the device, and is the only part of the engine with tensors.

Chapter 10 explains `pack`, which lays the new tokens of all requests end to end, so that one
forward pass serves them all without padding (selective batching, Orca, OSDI 2022). Chapter 16
explains the rest: a step of single tokens is a CUDA graph, tokens are drawn on the device, and
`execute` returns before they are there, so that the host can prepare the next step meanwhile.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from infero import graphs, kernels
from infero import model as model_module
from infero.cache import kv
from infero.cache import pool as pool_module
from infero.kernels import Options, lean
from infero.logits import RowState, draw, learners
from infero.model import Batch, Model
from infero.request import Plan, Scheduled
from infero.sampling import SamplingRows


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


@dataclass
class Flight:
    """A step that was launched. Its `tokens` are on the device, or None where logits are wanted."""

    plan: Plan
    sampling: list[Scheduled]  # the entries that sample, in the order of the rows
    logits: Tensor | None = None  # [rows, vocab] float32, if the host is to choose
    tokens: Tensor | None = None  # [rows] int64 on the host, valid once `ready` has happened
    ready: torch.cuda.Event | None = None
    row_of: dict[str, int] = field(default_factory=dict)  # of each request that samples

    def read(self) -> list[int]:
        """The drawn tokens; waits until the device has drawn them."""
        if self.ready is not None:
            self.ready.synchronize()
        return [] if self.tokens is None else self.tokens.tolist()


class Sender:
    """Sends lists of integers to a GPU without waiting: one pinned buffer, one copy."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.turn = device, 0
        self.ring: list[tuple[Tensor, torch.cuda.Event] | None] = [None] * graphs.RING

    def __call__(self, lists: Sequence[Sequence[int]]) -> list[Tensor]:
        """int32 tensors on the device, aligned views of one."""
        sizes = [graphs.aligned(len(numbers)) for numbers in lists]
        self.turn = (self.turn + 1) % len(self.ring)
        kept = self.ring[self.turn]
        if kept is not None:
            kept[1].synchronize()
        if kept is None or len(kept[0]) < sum(sizes):
            room = torch.empty(max(2 * sum(sizes), 1 << 14), dtype=torch.int32, pin_memory=True)
            kept = room, torch.cuda.Event()
        words = kept[0][: sum(sizes)]
        numbers = [number for part, size in zip(lists, sizes, strict=True)
                   for number in (*part, *[0] * (size - len(part)))]
        words.numpy()[:] = numbers
        there = words.to(self.device, non_blocking=True)
        kept[1].record()
        self.ring[self.turn] = kept
        parts = there.split(sizes)
        return [part[: len(given)] for part, given in zip(parts, lists, strict=True)]


WARM_UPS = ((300,), (2000,), (1, 1, 300), (1, 1, 1, 40), (9, 7))  # tokens of each request


class Runner:
    """A model with its paged cache, and a host cache where blocks can be swapped to.

    `max_rows` requests at most are in a step, of at most `max_len` tokens each.
    """

    def __init__(self, model: Model, num_blocks: int, block_size: int, host_blocks: int = 0, *,
                 options: Options | None = None, cuda_graphs: bool = False,
                 compiled: bool = False, max_rows: int = 64, max_len: int = 0) -> None:
        self.model, self.block_size = model, block_size
        self.options = options or kernels.options()
        kernels.prepare(model)
        make, config, device = kv.empty, model.config, model.device
        # On a GPU one block more than is handed out: padding of a captured step may write there.
        spare = int(device.type == "cuda")
        self.cache = make(config, num_blocks + spare, block_size, model.dtype, device)
        self.dump = num_blocks * block_size
        self.host = make(config, host_blocks, block_size, model.dtype, "cpu")
        if device.type == "cuda" and host_blocks:  # pinned memory copies without waiting
            self.host.k, self.host.v = self.host.k.pin_memory(), self.host.v.pin_memory()
        self.longest = max_len or num_blocks * block_size
        self.send = Sender(device)
        self.drawn = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.draws = graphs.Stage(max_rows, 0, device)  # for draws outside a graph
        self.before: Flight | None = None
        with kernels.using(self.options):
            self.compiled = compiled
            self.fused = self._fused()
            self.lean = not compiled and lean.usable(model)
            self.blanks = not kernels.attends(device)  # its attention reads what it masks
            self.plain_graphs = ""
            self.decoder = None
            if cuda_graphs and device.type == "cuda":
                self.plain_graphs = self._uncapturable()
                if not self.plain_graphs:
                    width = graphs.aligned(-(-self.longest // block_size), graphs.WIDTHS)
                    self.decoder = graphs.Decoder(model, self._body, self._batch_of, self.drawn,
                                                  max_rows, width, kernels.learners(device))

    def _fused(self) -> bool:
        if not kernels.attends(self.model.device) or self.compiled:
            return False
        from infero.kernels import forward

        return forward.usable(self.model)

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Inside, the pass is `model.forward` itself, a call an operation: to trace it."""
        before = self.lean, self.fused, self.decoder
        self.lean, self.fused, self.decoder = False, False, None
        try:
            yield
        finally:
            self.lean, self.fused, self.decoder = before

    def _uncapturable(self) -> str:
        """Why a decode step of this model cannot be captured; empty if it can."""
        device = self.model.device
        if self.options.kernels == "steps":
            return "the labs' attention takes lengths from the host"
        if not kernels.attends(device):
            return "attention is PyTorch's, which asks the host for lengths"
        names = [name for name in kernels.learners(device)
                 if "steps.attention" in name or name.endswith((".attention", "kv.write"))]
        return f"{names[0]} is the learner's and takes lengths from the host" if names else ""

    # ------------------------------------------------------------ a step

    @torch.inference_mode()
    def execute(self, plan: Plan, states: Sequence[RowState], *, choose: bool = False) -> Flight:
        """Start a step. `states` are those of the sampling entries, in the plan's order.

        choose: the host is going to choose the tokens, from the flight's logits. Otherwise the
        device draws them; the flight's `read` waits for them. A request whose newest token is not
        known yet must have sampled in the step before.
        """
        with kernels.using(self.options):
            return self._launch(plan, states, choose)

    def _launch(self, plan: Plan, states: Sequence[RowState], choose: bool) -> Flight:
        self._copy(plan)
        order, states = self._ordered(plan, states)
        spans = [self._span(entry) for entry in order]
        flight = Flight(plan, [entry for entry in order if entry.samples])
        flight.row_of = {entry.request.id: row for row, entry in enumerate(flight.sampling)}
        result = self._captured(order, spans, states, choose)
        if result is None:
            found = self._eager(spans)
            if choose or not states:
                flight.logits = found.float()
            else:
                result = self._draw(found, states, flight)
        elif choose:
            flight.logits = result[: len(states)].float()
        elif learners():
            result = self._draw(result[: len(states)], states, flight)
        if result is not None and not choose:
            self._read_back(flight, result[: len(states)])
        self.before = flight
        return flight

    def _ordered(self, plan: Plan, states: Sequence[RowState]
                 ) -> tuple[list[Scheduled], list[RowState]]:
        """Entries with single tokens first: they go to another kernel than longer chunks."""
        order = sorted(plan.entries, key=lambda entry: entry.n > 1)
        state_of = {entry.request.id: state for entry, state in zip(
            (entry for entry in plan.entries if entry.samples), states, strict=True)}
        return order, [state_of[e.request.id] for e in order if e.samples]

    def _span(self, entry: Scheduled) -> Span:
        """The tokens of an entry; one that was drawn but not read yet is -1 - its row."""
        request, end = entry.request, entry.start + entry.n
        known = request.tokens + request.drafts if entry.drafts else request.tokens
        tokens = known[entry.start : end]
        if len(tokens) < entry.n:
            assert self.before is not None
            tokens.append(-1 - self.before.row_of[request.id])
        return Span(tokens, entry.start, request.block_table, entry.samples)

    def _captured(self, order: Sequence[Scheduled], spans: Sequence[Span],
                  states: Sequence[RowState], choose: bool) -> Tensor | None:
        """Run a step of single tokens as a graph: logits or tokens, or None if it cannot be."""
        if self.decoder is None or any(e.n > 1 or not e.samples for e in order):
            return None
        params = [state.params for state in states]
        variant = "logits" if choose or learners() else graphs.variant_of(params)

        def write(host: graphs.Host) -> None:
            graphs.fill(host.buffers, pack(spans, self.block_size), [s.block_table for s in spans])
            graphs.set_rows(host, params, [state.seed for state in states])

        return self.decoder.step(len(spans), variant, write)

    def _eager(self, spans: Sequence[Span]) -> Tensor:
        """Run a step of any shape: logits [sampling spans, vocab]."""
        if self.blanks:
            self._blank(spans)
        ragged, device = pack(spans, self.block_size), self.model.device
        longest = max(len(span.block_table) for span in spans)
        if device.type == "cuda":
            longest = graphs.aligned(longest, graphs.WIDTHS)
        tables = [s.block_table + s.block_table[-1:] * (longest - len(s.block_table))
                  for s in spans]
        if device.type == "cpu":
            lists = (ragged.ids, ragged.positions, ragged.slots, ragged.rows)
            ids, positions, slots, rows = (torch.tensor(values, dtype=torch.int64)
                                           for values in lists)
            batch = Batch(positions, slots, torch.tensor(tables), self.block_size,
                          ragged.query_lens, ragged.context_lens)
        else:
            ids, rows, batch = self._sent(ragged, tables)
        if min(ragged.ids) < 0:
            drawn = self.drawn[(-1 - ids).clamp(min=0)].to(ids.dtype)  # or kernels compile anew
            ids = torch.where(ids < 0, drawn, ids)
        return self._forward(ids, batch, rows)

    def _sent(self, ragged: Ragged, tables: list[list[int]]) -> tuple[Tensor, Tensor, Batch]:
        """A step's numbers on the GPU, by one copy that nobody waits for."""
        heads, kv_heads = self.model.config.num_heads, self.model.config.num_kv_heads
        lengths = list[list[int]]()
        if attends := kernels.attends(self.model.device):
            from infero.kernels import forward

            lengths = forward.to_send(ragged.query_lens, ragged.context_lens, heads // kv_heads)
        lists = [ragged.ids, ragged.positions, ragged.slots, ragged.rows,
                 [block for table in tables for block in table]]
        sent = self.send([*lists, *lengths])
        sent, told = sent[: len(lists)], sent[len(lists) :]
        if not self.fused:
            sent = [t.long() for t in sent]
        ids, positions, slots, rows, blocks = sent
        batch = Batch(positions, slots, blocks.view(len(tables), -1), self.block_size,
                      ragged.query_lens, ragged.context_lens)
        if attends:
            batch.memo["layout"] = forward.made(batch, heads, kv_heads, told)
        return ids, rows, batch

    def _forward(self, ids: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        """The forward pass by whatever way was chosen: logits of `rows`, or of all."""
        if self.fused:
            from infero.kernels import forward

            return forward.forward(self.model, ids, batch, self.cache, rows)
        if self.lean:
            return lean.forward(self.model, ids, batch, self.cache, rows)
        if self.compiled:
            from infero.kernels import compiled

            return compiled.forward(self.model, ids, batch, self.cache, rows)
        return model_module.forward(self.model, ids, batch, self.cache, rows)

    # ------------------------------------------------------------ the captured step

    def _batch_of(self, stage: graphs.Stage, queries: int) -> Batch:
        """A bucket's buffers as a batch whose lengths are known on the device alone."""
        from infero.kernels import decode, forward

        t, config = stage.tensors, self.model.config
        splits = decode.splits_for(stage.bucket, config.num_kv_heads, self.longest,
                                   self.model.device)
        if self.compiled:  # each number is compiled anew: few different ones
            splits = 4 ** -(-(splits - 1).bit_length() // 2)
        batch = Batch(t["positions"], t["slots"], t["tables"], self.block_size,
                      [queries] * stage.bucket)
        layout = forward.Layout(t["contexts"], stage.bucket, queries, splits,
                                sources=t["sources"], previous=self.drawn)
        if self.options.deterministic:  # as in `forward.leading`
            starts = f"starts of {queries}"  # made once: the bucket's graphs keep the address
            if starts not in t:
                t[starts] = queries * torch.arange(stage.bucket + 1).to(t["ids"])
            layout.few, layout.longer, layout.longest_query = 0, t["contexts"], queries
            layout.query_starts = t[starts]
        batch.memo["layout"] = layout
        return batch

    def _body(self, ids: Tensor, batch: Batch, rows: SamplingRows, variant: str, out: Tensor
              ) -> Tensor:
        """What is captured: a forward pass, and the draw unless logits are wanted."""
        if not self.fused:  # the plain pass wants 64-bit indexes, and a real slot for padding
            where = batch.memo["layout"]
            slots, size = batch.slots.long(), self.block_size
            slots = torch.where(slots < 0, self.dump, slots)
            batch = Batch(batch.positions.long(), slots, batch.block_tables, size,
                          batch.query_lens, memo={"layout": where})
            drawn = self.drawn[where.sources.clamp(min=0)]
            ids = torch.where(where.sources < 0, ids.long(), drawn)
        found = self._forward(ids, batch)
        return found if variant == "logits" else draw(found, rows, variant, out)

    @torch.inference_mode()
    def warm_up(self, variants: Sequence[str] = ("greedy", "plain")) -> None:
        """Compile what prefills need, and capture the decode steps of all batch sizes, now."""
        if self.model.device.type == "cpu":
            return
        with kernels.using(self.options):
            for lengths in WARM_UPS:
                self._eager([self._dummy(min(n, self.longest)) for n in lengths])
            if self.decoder is not None:
                self.decoder.capture_all(variants)

    def _dummy(self, n: int) -> Span:
        """A span of n tokens whose keys all go to the spare block."""
        blocks = -(-n // self.block_size)
        return Span([0] * n, 0, [self.dump // self.block_size] * blocks, True)

    # ------------------------------------------------------------ drawing

    def _draw(self, found: Tensor, states: Sequence[RowState], flight: Flight) -> Tensor:
        """Draw on the device, outside a graph."""
        params, n = [state.params for state in states], len(states)
        host = self.draws.next()
        host.buffers.contexts[:n] = [entry.start + entry.n for entry in flight.sampling]
        graphs.set_rows(host, params, [state.seed for state in states])
        self.draws.send(host)
        return draw(found, self.draws.rows(n), graphs.variant_of(params), self.drawn[:n])

    def _read_back(self, flight: Flight, tokens: Tensor) -> None:
        """Start copying the drawn tokens to the host."""
        if not tokens.is_cuda:
            flight.tokens = tokens.clone()
            return
        flight.tokens = torch.empty(len(tokens), dtype=tokens.dtype, pin_memory=True)
        flight.tokens.copy_(tokens, non_blocking=True)
        flight.ready = torch.cuda.Event()
        flight.ready.record()

    # ------------------------------------------------------------ blocks

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
