"""`infero bench compare`: the engine beside the other engines of this machine, in one run.

The same weights, the same prompts, the same machine within minutes: one request alone (decoding
only) and a whole batch of requests offline. `peers.py` and `peers_speed.py` run the others;
transformers gets views of our weights, vLLM random ones of the same shape. What cannot run here
says why. Chapter 16 reads the table.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from infero import bench, bench_limits, peers, peers_speed
from infero import bench_throughput as offline
from infero.bench_limits import Limits, Work
from infero.bench_throughput import Job, Run, Seen
from infero.engine import Engine, EngineConfig
from infero.errors import InferoError
from infero.model import Model
from infero.peers import PeerMissing


@dataclass(frozen=True)
class Task:
    """What everybody does: one request alone, and a job of many."""

    prompt: list[int]
    new: int
    job: Job
    runs: int = 3
    slots: int = 256
    budget: int | None = None  # tokens of one of our steps
    limit_s: float = math.inf  # for a peer's job


@dataclass(frozen=True)
class Engines:
    """One way to run the task: `alone` gives seconds of each run, `batch` a Run; None: not its job.
    """

    key: str
    name: str
    alone: Callable[[Bench], list[float]] | None = field(repr=False)
    batch: Callable[[Bench, Seen], Run] | None = field(repr=False)
    gpu_only: str = ""  # why a CPU does without it


@dataclass
class Bench:
    """The model under test, with the peers made of it so far."""

    model: Model
    task: Task
    limits: Limits
    peer: Any = None

    def transformers(self) -> Any:
        if self.peer is None:
            self.peer = peers.transformers_model(self.model)
        return self.peer


@dataclass(frozen=True)
class Line:
    """One engine's results. `problem` says why something is missing."""

    key: str
    name: str
    alone_rates: tuple[float, ...] = ()
    alone: Work | None = None
    run: Run | None = None
    problem: str = ""

    @property
    def alone_rate(self) -> float | None:
        return bench.percentile(self.alone_rates, 50) if self.alone_rates else None

    @property
    def batch_rate(self) -> float | None:
        return self.run.tokens_per_s if self.run is not None and self.run.tokens else None


# ---------------------------------------------------------------- the engines


def infero_alone(b: Bench) -> list[float]:
    task = b.task
    engine = Engine(b.model, EngineConfig(
        max_num_seqs=1, max_model_len=len(task.prompt) + task.new + 1))
    return offline.alone(engine, task.prompt, task.new, task.runs)


def infero_batch(b: Bench, seen: Seen) -> Run:
    task = b.task
    engine = Engine(b.model, offline.engine_config(
        task.job, task.slots, task.budget, prefix_caching=False))
    offline.ready(engine)
    offline.warm_up(engine, task.job)
    return offline.continuous(engine, task.job, seen=seen)


def dynamic_alone(b: Bench) -> list[float]:
    return peers_speed.transformers_alone(b.transformers(), b.task.prompt, b.task.new,
                                          min(b.task.runs, 2))


def dynamic_batch(b: Bench, seen: Seen) -> Run:
    if b.model.device.type == "cuda":
        raise PeerMissing("its padded static batches of this job take minutes on a GPU; its "
                          "continuous batching below is the fair choice")
    return peers.transformers_static(b.transformers(), b.task.job, b.task.slots, seen=seen)


def static_alone(b: Bench) -> list[float]:
    return peers_speed.transformers_alone(b.transformers(), b.task.prompt, b.task.new,
                                          b.task.runs, static=True, warm=2)


def continuous_batch(b: Bench, seen: Seen) -> Run:
    return peers_speed.transformers_continuous(b.transformers(), b.task.job, b.task.limit_s,
                                               seen=seen)


ENGINES: tuple[Engines, ...] = (
    Engines("infero", "infero", infero_alone, infero_batch),
    Engines("transformers_dynamic", "transformers, generate()", dynamic_alone, dynamic_batch),
    Engines("transformers_static", "transformers, static, compiled", static_alone, None,
            gpu_only="on a CPU it would compile C++ for minutes"),
    Engines("transformers_continuous", "transformers, continuous", None,
            continuous_batch),
)
VLLM = "vLLM"


def compare(b: Bench, chosen: Sequence[Engines] = ENGINES, *, vllm: bool = True,
            starting: Callable[[str], None] | None = None, seen: Seen = lambda *_: None
            ) -> Iterator[Line]:
    """One engine after another; the first is infero. vLLM comes last and needs the GPU empty:
    `b.model` and the peer are let go before it starts."""
    for one in chosen:
        if starting is not None:
            starting(one.name)
        yield line_of(b, one, seen)
        released(b.model.device)
    if not vllm:
        return
    if not peers_speed.has_vllm():
        yield Line("vllm", VLLM, problem="it is not installed here")
        return
    if starting is not None:
        starting(VLLM)
    yield vllm_line(b)


def line_of(b: Bench, one: Engines, seen: Seen) -> Line:
    """Both measurements of one engine; a problem with one leaves the other."""
    device, task, problems = b.model.device, b.task, list[str]()
    if one.gpu_only and device.type != "cuda":
        return Line(one.key, one.name, problem=one.gpu_only)
    rates: tuple[float, ...] = ()
    work, run = None, None
    if one.alone is not None:
        try:
            times = one.alone(b)
            rates = tuple((task.new - 1) / t for t in times)
            work = bench_limits.decode(b.model, len(task.prompt), task.new,
                                       bench.percentile(times, 50))
        except Exception as problem:
            problems.append(_survived(one, problem))
        released(device)
    if one.batch is not None:
        try:
            run = one.batch(b, seen)
            if run.stopped == "Ctrl-C":
                raise KeyboardInterrupt
            if run.stopped:
                problems.append(f"stopped after {run.duration_s:.0f} s with {run.tokens:,} of "
                                f"{task.job.output_tokens:,} tokens")
        except Exception as problem:
            problems.append(_survived(one, problem))
    return Line(one.key, one.name, rates, work, run, "; ".join(problems))


def vllm_line(b: Bench) -> Line:
    """vLLM's line; our weights leave the GPU for it."""
    task, model = b.task, b.model
    try:
        config = b.transformers().config
        if model.device.type == "cuda":
            b.peer = None
            empty_model(model)
        alone, batch_s = peers_speed.vllm_times(model, config, task.prompt, task.new, task.runs,
                                                task.job)
    except (PeerMissing, InferoError) as problem:
        return Line("vllm", VLLM, problem=_words(problem))
    run = Run(VLLM, len(task.job.prompts), batch_s, len(task.job.prompts), task.job.output_tokens)
    return Line("vllm", VLLM, tuple((task.new - 1) / t for t in alone), None, run)


def empty_model(model: Model) -> None:
    """Let a model's matrices go, in place: it is of no use afterwards."""
    nothing = torch.empty(0, dtype=model.dtype)
    model.layers.clear()
    model.embedding = model.head = model.final_norm = nothing
    released(torch.device("cuda"))


def _survived(one: Engines, problem: Exception) -> str:
    """A peer may fail in its own way; infero only for a reason that it names itself."""
    named = isinstance(problem, (InferoError, torch.OutOfMemoryError))
    if one.key == "infero" and not named:
        raise problem
    return _words(problem) if named else f"{type(problem).__name__}: {_words(problem)}"


def _words(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:200]


def released(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# ---------------------------------------------------------------- the task


def task_of(model: Model, *, small: bool = False, limit_s: float = math.inf,
            requests: int | None = None) -> Task:
    """PEERS' workload on a GPU: prompt 128 and 256 new tokens alone, 256 requests of 100 to 1,024
    tokens together. A CPU gets a smaller one of the same kind; `small` is for trying it out."""
    vocab, draw = model.config.vocab_size, random.Random(0)
    gpu = model.device.type == "cuda"
    size, new = (8, 6) if small else (128, 256) if gpu else (64, 64)
    prompt = [draw.randrange(vocab) for _ in range(size)]
    if small:
        job = offline.make_job(vocab, 4, "uniform:3:6", "uniform:3:6", 0)
        return Task(prompt, new, job, 2, 4, None, limit_s)
    if gpu:
        job = offline.nano_vllm_job(requests or 256)
        return Task(prompt, new, job, 3, 256, 8192, limit_s)
    job = offline.make_job(vocab, requests or 32, "uniform:10:100", "uniform:10:100", 0)
    return Task(prompt, new, job, 3, 16, None, limit_s)


# ---------------------------------------------------------------- for reading

COLUMNS = ("engine", "alone tok/s", "gain", "limit", "batch tok/s", "gain ")
CAPTION = ("alone: one request, decoding only. gain: infero's rate over that line's. limit:\n"
           "share of the read limit measured in this run. batch: output of all requests.")


def cells(line: Line, ours: Line, limits: Limits) -> list[str]:
    """One engine for reading, in the columns COLUMNS; `ours` is infero's line."""
    def rate(value: float | None) -> str:
        return f"{value:,.1f}" if value else "–"

    def ratio(mine: float | None, theirs: float | None) -> str:
        return f"{mine / theirs:.2f}×" if mine and theirs and line is not ours else ""

    share = f"{100 * line.alone.share(limits):.0f} %" if line.alone else ""
    return [line.name, rate(line.alone_rate), ratio(ours.alone_rate, line.alone_rate), share,
            rate(line.batch_rate), ratio(ours.batch_rate, line.batch_rate)]
