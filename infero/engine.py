"""The engine: many requests at once, one forward pass a step.

Chapters 10 and 11 explain it. `add_request` queues, `step` plans, runs, samples and commits one
step and returns what became known, `abort` ends a request at any moment. `LLM` drives it for
scripts, the server for clients.

On a GPU a step is launched before the one before it is read back, so that the host's work is done
while the device computes (chapter 16): `step` then returns the tokens of the step before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from infero import generate, grammar, kernels, logits
from infero.engine_config import ENGINE_FIELDS as ENGINE_FIELDS
from infero.engine_config import EngineConfig, num_blocks
from infero.errors import ConfigError, InferoError, ParameterError, PromptError, StalePiecesError
from infero.lab import swap
from infero.model import Model
from infero.outputs import Assembler, Chunk, Logprob, Metrics
from infero.request import Plan, Request
from infero.runner import Flight, Runner
from infero.sampling import SamplingParams
from infero.scheduler import Scheduler


class OutOfMemory(InferoError):
    """The device had no room for a step."""


@dataclass
class StepRecord:
    """What one step did, for timelines and plots. Times are seconds of the engine's clock."""

    step: int
    start_s: float
    end_s: float
    forward_s: float  # copies, forward pass and sampling: what is not scheduling
    waiting: int
    running: int
    free_blocks: int
    cached_blocks: int  # free ones that still hold a prefix
    entries: list[dict[str, Any]]  # id, start, n, samples, token, blocks
    admitted: list[str]
    preempted: list[str]
    finished: list[str]
    aborted: list[str]  # since the step before
    copies: list[dict[str, Any]]  # kind, source, target
    cached_tokens: dict[str, int] = field(default_factory=dict)  # of the admitted
    arrivals_s: dict[str, float] = field(default_factory=dict)  # of the admitted

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Stats:
    """Running totals."""

    steps: int = 0
    tokens_computed: int = 0
    tokens_sampled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    step_s: float = 0.0
    forward_s: float = 0.0


@dataclass
class _Sequence:
    """One completion: how its tokens are drawn and become text. `Request.state`."""

    group: str
    row: logits.RowState
    assembler: Assembler
    metrics: Metrics
    logprob: Logprob | None = None  # of the newest token


@dataclass
class _Flying:
    """A launched step, with what its record will say."""

    flight: Flight
    tables: list[list[int]]
    start_s: float
    launch_s: float


class Engine:
    """A model that serves many requests at once over a paged KV cache.

    `on_step` is called with a StepRecord after every step; `clock` tells the time in seconds.
    """

    def __init__(self, model: Model, config: EngineConfig | None = None, *,
                 on_step: Callable[[StepRecord], None] | None = None,
                 clock: Callable[[], float] = time.perf_counter) -> None:
        config = (config or EngineConfig()).on(model.device)
        cuda = model.device.type == "cuda"
        whole = isinstance(model.layers[0].qkv, torch.Tensor)
        if config.quantization is not None and whole:
            from infero.kernels import cpu_products, formats

            if config.quantization == "stored":
                raise ConfigError("quantization is 'stored', but this model's weights were "
                                  "dequantized when it was loaded: load it with "
                                  "keep_quantized=True, or give LLM its path.")
            model = formats.quantize_model(model, config.quantization)
            if config.kernels in ("auto", "torch"):
                model = cpu_products.adopt_model(model)
        self.model, self.config = model, config
        self.on_step, self.clock = on_step, clock
        self.overlap = cuda if config.overlap is None else config.overlap
        self.num_blocks = num_blocks(model, self.config)
        longest = min(config.max_model_len or model.config.max_context, model.config.max_context,
                      self.num_blocks * config.block_size)
        self.runner = Runner(
            model, self.num_blocks, config.block_size, config.host_blocks,
            options=kernels.Options(config.kernels, config.fuse, config.deterministic),
            cuda_graphs=config.cuda_graphs, compiled=config.compile, max_rows=config.max_num_seqs,
            max_len=longest)
        self.scheduler = Scheduler(self.config, self.num_blocks, self.config.block_size)
        self._flight: _Flying | None = None  # launched, not read back
        self.max_model_len = min(self.config.max_model_len or model.config.max_context,
                                 model.config.max_context, self.scheduler.capacity)
        self.stats = Stats()
        self._groups: dict[str, list[Request]] = {}
        self._aborted: list[str] = []
        self._pieces_generation = swap.generation()

    # ------------------------------------------------------------ requests

    def add_request(self, id: str, prompt: list[int], params: SamplingParams | None = None, *,
                    arrival_s: float | None = None, priority: int = 0,
                    expected_tokens: int | None = None, salt: str = "") -> None:
        """Queue `params.n` completions of a prompt of token ids.

        arrival_s: when it arrived on the engine's clock (default: now). priority: smaller is more
        urgent. expected_tokens: estimated output length for shortest-job-first. salt: only
        requests of one salt share cached prefixes. Output longer than the context, or than the
        cache, ends with "length". Raises PromptError or ParameterError, and then queues nothing.
        """
        params = params or SamplingParams()
        names = [id] if params.n == 1 else [f"{id}:{i}" for i in range(params.n)]
        if id in self._groups or any(name in self.scheduler.requests for name in names):
            raise ParameterError(f"Request id {id!r} is in use (completion i of several is called "
                                 "ID:i); ids of requests that have not ended must differ.")
        prompt = generate.as_ids(prompt)
        generate.check_prompt(self.model.config, prompt, 1)
        generate.check_params(self.model.config, params)
        room = min(self.max_model_len - len(prompt),
                   self.scheduler.capacity - len(prompt) + 1)
        if room < 1:
            raise PromptError(
                f"The prompt has {len(prompt)} tokens, but a request may have {self.max_model_len} "
                f"with its output (KV cache: {self.scheduler.capacity} tokens in {self.num_blocks} "
                "blocks); shorten it, raise max_model_len, or give the cache more memory.")
        params = replace(params, max_tokens=min(params.max_tokens, room),
                         min_tokens=min(params.min_tokens, room))
        stops = generate.stop_tokens_of(self.model, params)
        arrival_s = self.clock() if arrival_s is None else arrival_s
        group: list[Request] = []
        for index, one in enumerate(fork(params)):
            matcher = grammar.matcher(one, self.model.tokenizer, self.model.config.vocab_size,
                                      self.model.config.eos_token_ids)
            state = _Sequence(
                id,
                logits.row_state(one, prompt, self.model.config.vocab_size, stops,
                                 self.model.device, matcher),
                Assembler(one, stops, one.max_tokens, self.model.tokenizer, index, id),
                Metrics(len(prompt)),
            )
            group.append(Request(
                names[index], list(prompt), len(prompt), params.max_tokens, arrival_s,
                priority, expected_tokens, salt.encode(),
                parent=group[0] if group else None, state=state))
        for request in group:
            self.scheduler.add(request)
        self._groups[id] = group
        self.stats.prompt_tokens += len(prompt)

    def abort(self, id: str) -> bool:
        """End a request, wherever it is, and free its blocks. False if it has ended already."""
        group = self._groups.pop(id, [])
        self._aborted += [r.id for r in group if self.scheduler.abort(r.id)]
        return bool(group)

    def has_unfinished(self) -> bool:
        return bool(self._groups)

    # ------------------------------------------------------------ one step

    def step(self) -> list[Chunk]:
        """Plan, run and commit one forward pass: one chunk for each token that was drawn.

        If a step fails, or is interrupted, every request is aborted and the cache forgets its
        prefixes: the engine stays usable.
        """
        if swap.generation() != self._pieces_generation:
            raise StalePiecesError(
                "A piece was installed or removed after this LLM was built; build a new LLM() "
                "so that the whole engine runs the same pieces.")
        try:
            with self._current():
                return self._step()
        except BaseException as problem:
            ended = len(self._groups)
            self.reset()
            if isinstance(problem, torch.OutOfMemoryError):
                raise OutOfMemory(
                    f"The device ran out of memory in a step of up to "
                    f"{self.config.max_num_batched_tokens} tokens, and {ended} requests were "
                    "aborted; lower max_num_batched_tokens, max_num_seqs or "
                    "gpu_memory_utilization.") from problem
            problem.add_note(f"({ended} requests were aborted; the engine can be used again.)")
            raise

    def _step(self) -> list[Chunk]:
        start_s, chunks = self.clock(), list[Chunk]()
        plan = self.scheduler.schedule(start_s)
        before, self._flight = self._flight, None
        launched = self._launch(plan, start_s) if plan is not None else None
        if before is not None:
            self._land(before, chunks)
        self._flight = launched
        alone = launched is not None and (launched.flight.logits is not None or not self.overlap)
        if alone or not self._groups:  # nothing more is to come that could overlap
            self._drain(chunks)
        self.stats.step_s += self.clock() - start_s
        return chunks

    def _drain(self, chunks: list[Chunk]) -> None:
        """Take in the step that is on its way."""
        flying, self._flight = self._flight, None
        if flying is not None:
            self._land(flying, chunks)

    def _launch(self, plan: Plan, start_s: float) -> _Flying:
        """Start a step. The device draws its tokens if no row depends on what the host knows."""
        states = [entry.request.state.row for entry in plan.entries if entry.samples]
        planned_s = self.clock()
        here = self.model.device.type == "cpu" and not self.overlap  # no need to draw early
        choose = here or not all(state.plain for state in states)
        flight = self.runner.execute(plan, states, choose=choose)
        tables = [list(e.request.block_table) for e in plan.entries] if self.on_step else []
        return _Flying(flight, tables, start_s, self.clock() - planned_s)

    def _land(self, flying: _Flying, chunks: list[Chunk]) -> None:
        """Read a step's tokens back, or choose them, and commit it."""
        flight, plan = flying.flight, flying.flight.plan
        waiting_s = self.clock()
        if flight.logits is not None:
            tokens = self._choose(flight)
        else:
            tokens = flight.read()
        now_s = self.clock()
        drawn = {entry.request.id: token
                 for entry, token in zip(flight.sampling, tokens, strict=True)}
        self.scheduler.commit(
            plan, [[drawn[e.request.id]] if e.samples else [] for e in plan.entries],
            lambda request, token: self._accept(request, token, now_s, chunks))
        self._count(plan, drawn, flying.tables, flying.start_s,
                    flying.launch_s + now_s - waiting_s)

    def _choose(self, flight: Flight) -> list[int]:
        """The new token of each sampling request, chosen by the host."""
        requests = [entry.request for entry in flight.sampling]
        if not requests or flight.logits is None:
            return []
        rows = [request.state.row for request in requests]
        tokens = logits.choose(flight.logits, rows, [e.start + e.n for e in flight.sampling])
        for request, logprob in zip(requests, logits.logprobs(flight.logits, rows, tokens),
                                    strict=True):
            request.state.logprob = logprob
        return tokens

    def _accept(self, request: Request, token: int, now_s: float, chunks: list[Chunk]
                ) -> str | None:
        """Turn an accepted token into a chunk; the reason if the request ends with it."""
        state: _Sequence = request.state
        chunk = state.assembler.push(token, state.logprob)
        if chunk.token is not None:
            state.metrics.token_times_s.append(now_s - request.arrival_s)
        if chunk.finish_reason is not None:
            metrics = state.metrics
            first_s = now_s if request.scheduled_s is None else request.scheduled_s
            metrics.queue_s = first_s - request.arrival_s
            metrics.cached_tokens = request.cached_tokens
            metrics.preemptions = request.preemptions
            chunk.metrics = metrics
            group = self._groups[state.group]
            if all(r is request or r.status == "finished" for r in group):
                del self._groups[state.group]
        chunks.append(chunk)
        return chunk.finish_reason

    def _count(self, plan: Plan, drawn: dict[str, int], tables: list[list[int]],
               start_s: float, forward_s: float) -> None:
        end_s, stats, scheduler = self.clock(), self.stats, self.scheduler
        stats.steps += 1
        stats.tokens_computed += plan.tokens
        stats.tokens_sampled += len(drawn)
        stats.preemptions += len(plan.preempted)
        stats.forward_s += forward_s
        by_id = {entry.request.id: entry.request for entry in plan.entries}
        cached = {id: by_id[id].cached_tokens for id in plan.admitted if id in by_id}
        stats.cached_tokens += sum(
            n for id, n in cached.items() if by_id[id].preemptions == 0)
        aborted, self._aborted = self._aborted, []  # on_step may abort more
        if self.on_step is None:
            return
        free = scheduler.pool.free
        self.on_step(StepRecord(
            plan.step, start_s, end_s, forward_s, scheduler.num_waiting, len(scheduler.running),
            len(free), sum(scheduler.pool.hash_of[b] is not None for b in free),
            [{"id": e.request.id, "start": e.start, "n": e.n, "samples": e.samples,
              "token": drawn.get(e.request.id) if e.samples else None,
              "blocks": table} for e, table in zip(plan.entries, tables, strict=True)],
            plan.admitted, plan.preempted,
            [e.request.id for e in plan.entries if e.request.status == "finished"],
            aborted, [asdict(copy) for copy in plan.copies], cached,
            {id: by_id[id].arrival_s for id in cached}))

    # ------------------------------------------------------------ state

    def warm_up(self) -> float:
        """Compile the kernels and capture all decode steps now, not at first use; its seconds."""
        start_s = self.clock()
        with self._current():
            self.runner.warm_up()
        return self.clock() - start_s

    def _current(self) -> AbstractContextManager[Any]:
        """Makes the model's GPU the current one, where Triton launches and events are recorded."""
        device = self.model.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def reset(self) -> None:
        """Abort everything and forget every cached prefix."""
        self._groups.clear()
        self._flight = None
        self.scheduler = Scheduler(self.config, self.num_blocks, self.config.block_size)

    def check_integrity(self) -> None:
        """AssertionError, in words, if a block leaked or a request was lost."""
        self.scheduler.check_integrity()
        known = {r.id for group in self._groups.values() for r in group if r.status != "finished"}
        assert known == set(self.scheduler.requests), (
            f"engine and scheduler disagree about {known ^ set(self.scheduler.requests)}")


def fork(params: SamplingParams) -> list[SamplingParams]:
    """One parameter set a completion; further completions of a seeded request get seed + i."""
    if params.seed is None:
        return [params] * params.n
    return [replace(params, seed=params.seed + i) for i in range(params.n)]
