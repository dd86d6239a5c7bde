"""`infero bench ladder`: the book's spine. One model, one machine, one optimisation after another.

Each rung adds one idea, names the chapter that explains it, and is measured: tokens a second,
bytes a second that had to be moved, and the share of the roofline, whose limits are measured in the
same run (`bench_limits.py`). The first rungs answer one request: the time from its first new token
to its last. The last ones serve a crowd whose prompts begin alike, and count the tokens of all.
A rung that is slower is reported as slower; one that cannot run here says why.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from infero import bench, bench_limits, generate
from infero import bench_throughput as offline
from infero.bench_limits import Limits, Work
from infero.bench_throughput import Job
from infero.engine import ENGINE_FIELDS, Engine, EngineConfig, OutOfMemory
from infero.errors import ConfigError, InferoError
from infero.model import Model
from infero.sampling import SamplingParams

BLOCK = 16
log = logging.getLogger("infero")


class NotHere(InferoError):
    """A rung cannot be climbed on this machine; the message says why."""


@dataclass(frozen=True)
class Sizes:
    """How much work each rung does: enough to measure, little enough to wait for."""

    prompt: int = 128  # of the one request
    new: int = 256
    slow_new: int = 48  # where the host launches every kernel
    naive_new: int = 8
    runs: int = 3
    requests: int = 128  # of the crowd
    prefix: int = 512  # tokens with which every prompt begins
    own: str = "uniform:32:256"  # further tokens of each prompt
    lengths: str = "geometric:64:256"  # tokens made for each
    reserved: int = 24  # requests for whose longest possible length the cache has room
    slots: int = 128
    whole: int = 8192  # budget of a step whose prompts are not cut
    chunk: int = 2048  # and of one whose prompts are


GPU = Sizes()
CPU = Sizes(64, 64, 64, 8, 3, 40, 96, "uniform:8:32", "geometric:24:64", 8, 40, 1024, 128)
SMOKE = Sizes(8, 4, 4, 3, 2, 4, 16, "uniform:2:6", "fixed:3", 2, 4, 64, 32)
WARM = 4  # tokens of a loop's run that is not timed


@dataclass
class Ground:
    """What is climbed: a model that `make(dtype)` gives, on one device, with one crowd."""

    name: str
    make: Callable[[str], Model]
    device: torch.device
    limits: Limits
    sizes: Sizes
    best_dtype: str = "bfloat16"
    stored: Callable[[], Model] | None = None  # the file's own matrices, where it is a GGUF file
    kept: dict[str, Model] = field(default_factory=dict)

    def model(self, dtype: str) -> Model:
        """The model in this dtype; one in another dtype is let go first."""
        if dtype not in self.kept:
            self.kept.clear()
            released(self.device)
            self.kept[dtype] = self.make(dtype)
        return self.kept[dtype]

    def prompt(self, model: Model) -> list[int]:
        draw = random.Random(0)
        return [draw.randrange(model.config.vocab_size) for _ in range(self.sizes.prompt)]

    def crowd(self, model: Model) -> Job:
        """Requests whose prompts share their beginning, as behind one system prompt."""
        sizes, vocab = self.sizes, model.config.vocab_size
        job = offline.make_job(vocab, sizes.requests, sizes.lengths, sizes.own, seed=0)
        draw = random.Random(1)
        common = [draw.randrange(vocab) for _ in range(sizes.prefix)]
        return Job([common + own for own in job.prompts], job.lengths, 0.0, 0)


@dataclass(frozen=True)
class Rung:
    """One optimisation: where the book explains it, what it changes, how it is measured."""

    key: str
    name: str
    chapter: int
    line: str
    measure: Callable[[Ground], Found] = field(repr=False)
    crowd: bool = False


@dataclass
class Found:
    """What a rung measured: one Work a run; the gap between two tokens that 1 % exceed."""

    works: list[Work]
    itl_p99_s: float | None = None


@dataclass(frozen=True)
class Step:
    """A rung with what came of it: `found`, or the `problem` that kept it from running."""

    rung: Rung
    found: Found | None = None
    problem: str = ""
    failed: bool = False  # by a mistake, not because the machine cannot

    @property
    def rate(self) -> float:
        """Tokens a second, median of the runs; 0 where it could not run."""
        return bench.percentile([w.rate for w in self.found.works], 50) if self.found else 0.0

    @property
    def work(self) -> Work | None:
        """The run whose rate is the (upper) median."""
        if self.found is None:
            return None
        return sorted(self.found.works, key=lambda w: w.rate)[len(self.found.works) // 2]


# ---------------------------------------------------------------- one request


def loop_work(ground: Ground, dtype: str, use_cache: bool) -> Found:
    """Chapter 1's or chapter 7's loop over plain PyTorch."""
    model, sizes = ground.model(dtype), ground.sizes
    new = sizes.slow_new if use_cache else sizes.naive_new
    prompt, works = ground.prompt(model), list[Work]()
    account = bench_limits.decode if use_cache else bench_limits.recompute
    for run in range(sizes.runs + 1):
        params = SamplingParams(temperature=0.0, max_tokens=new if run else min(new, WARM),
                                ignore_eos=True)
        with plain_torch():
            times = [time.perf_counter() for _ in
                     generate.stream(model, prompt, params, use_cache=use_cache)]
        if run:  # the first one warms up
            works.append(account(model, len(prompt), new, times[-1] - times[0]))
    return Found(works)


def engine_work(ground: Ground, new: int | None = None, *, model: Model | None = None,
                **switches: Any) -> Found:
    """One request through the engine with these switches."""
    need(*switches)
    model, sizes = model or ground.model(ground.best_dtype), ground.sizes
    new = new or sizes.new
    engine = Engine(model, EngineConfig(
        max_num_seqs=1, max_model_len=sizes.prompt + new + 1, block_size=BLOCK, **switches))
    prompt = ground.prompt(model)
    times = offline.alone(engine, prompt, new, sizes.runs)
    return Found([bench_limits.decode(engine.model, len(prompt), new, t) for t in times])


def plain_torch() -> contextlib.AbstractContextManager[Any]:
    """The forward pass in PyTorch's own operations, also where Triton kernels exist."""
    from infero import kernels

    return kernels.using(kernels="torch")


def need(*switches: str) -> None:
    """NotHere where the engine lacks a switch."""
    missing = [name for name in switches if name not in ENGINE_FIELDS]
    if missing:
        raise NotHere(f"the engine has no switch {missing[0]!r} yet")


def need_gpu(ground: Ground, why: str) -> None:
    if ground.device.type != "cuda":
        raise NotHere(why)


def dtype_work(ground: Ground) -> Found:
    if ground.best_dtype == "float32":
        raise NotHere("float32 is this CPU's fastest format: there is nothing to change")
    return loop_work(ground, ground.best_dtype, True)


def kernels_work(ground: Ground) -> Found:
    need_gpu(ground, "Triton compiles for GPUs; a CPU would interpret it")
    return engine_work(ground, ground.sizes.slow_new, kernels="triton", cuda_graphs=False,
                       overlap=False)


def graphs_work(ground: Ground) -> Found:
    need_gpu(ground, "a CPU has no launches to record")
    return engine_work(ground, cuda_graphs=True, overlap=True)


def calls_work(ground: Ground) -> Found:
    if ground.device.type != "cpu":
        raise NotHere("a GPU has graphs: what the host calls for does not count")
    return engine_work(ground)


def quantized_work(ground: Ground, kind: str) -> Found:
    return engine_work(ground, quantization=kind)


def stored_work(ground: Ground) -> Found:
    if ground.stored is None:
        raise NotHere("the weights do not come from a GGUF file")
    if "stored" not in ground.kept:
        ground.kept["stored"] = ground.stored()
    return engine_work(ground, model=ground.kept["stored"])


# ---------------------------------------------------------------- a crowd


def crowd_work(ground: Ground, slots: int, budget: int, **options: Any) -> Found:
    """The crowd through the engine, `slots` at once, in a cache of the same size on every rung."""
    model, sizes = ground.model(ground.best_dtype), ground.sizes
    job = ground.crowd(model)
    longest = -(-job.longest // BLOCK) * BLOCK
    engine = Engine(model, EngineConfig(
        max_num_seqs=slots, max_num_batched_tokens=max(budget, slots, longest),
        max_model_len=job.longest, num_blocks=sizes.reserved * longest // BLOCK, block_size=BLOCK,
        **options))
    offline.ready(engine)
    offline.warm_up(engine, job)
    return Found(*serve(engine, job))


def serve(engine: Engine, job: Job) -> tuple[list[Work], float]:
    """All requests at once: the work, and the 99th percentile of the gaps between tokens."""
    engine.reset()
    before = (engine.stats.steps, engine.stats.cached_tokens)
    last: dict[str, float] = {}
    gaps, made, start_s = list[float](), 0, time.perf_counter()
    for i, prompt in enumerate(job.prompts):
        engine.add_request(str(i), prompt, offline.params_of(job, i))
    while engine.has_unfinished():
        chunks = engine.step()
        now_s = time.perf_counter()
        for chunk in chunks:
            if chunk.token is not None:
                made += 1
                if chunk.id in last:
                    gaps.append(now_s - last[chunk.id])
                last[chunk.id] = now_s
    seconds = time.perf_counter() - start_s
    if made != job.output_tokens:
        raise RuntimeError(f"The crowd got {made} of {job.output_tokens} tokens: find the mistake "
                           "before measuring.")
    work = bench_limits.served(
        engine.model, [len(p) for p in job.prompts], job.lengths,
        engine.stats.cached_tokens - before[1], engine.stats.steps - before[0], seconds)
    return [work], bench.percentile(gaps, 99) if gaps else 0.0


def batch_work(ground: Ground) -> Found:
    sizes = ground.sizes
    return crowd_work(ground, sizes.reserved, sizes.whole, prefix_caching=False,
                      chunked_prefill=False)


def paged_work(ground: Ground) -> Found:
    return crowd_work(ground, ground.sizes.slots, ground.sizes.whole, chunked_prefill=False)


def chunked_work(ground: Ground) -> Found:
    return crowd_work(ground, ground.sizes.slots, ground.sizes.chunk)


RUNGS: tuple[Rung, ...] = (
    Rung("naive", "naive, float32", 1, "every token recomputes the whole sequence",
         lambda g: loop_work(g, "float32", False)),
    Rung("cache", "KV cache", 7, "only the newest token is computed",
         lambda g: loop_work(g, "float32", True)),
    Rung("dtype", "16-bit weights", 2, "half the bytes to read", dtype_work),
    Rung("kernels", "fused kernels", 13, "six Triton launches a layer", kernels_work),
    Rung("graphs", "CUDA graphs", 16, "one launch a step, the host works ahead", graphs_work),
    Rung("calls", "fewer calls", 16, "views made once a step, results added in place", calls_work),
    Rung("int8", "8-bit weights", 15, "half the bytes again", lambda g: quantized_work(g, "int8")),
    Rung("int4", "4-bit weights", 15, "and again", lambda g: quantized_work(g, "int4")),
    Rung("stored", "4 bits as stored", 5, "the file's own numbers: nothing is rounded",
         stored_work),
    Rung("batch", "continuous batching", 10, "a crowd in 16 bits, the worst case reserved for each",
         batch_work, crowd=True),
    Rung("paged", "pages and prefixes", 8, "the same memory holds more, shared text once",
         paged_work, crowd=True),
    Rung("chunked", "chunked prefill", 11, "long prompts no longer hold up the others",
         chunked_work, crowd=True),
)


# ---------------------------------------------------------------- climbing


def climb(ground: Ground, rungs: Sequence[Rung] = RUNGS,
          starting: Callable[[Rung], None] | None = None) -> Iterator[Step]:
    """Measure rung after rung."""
    for rung in rungs:
        if starting is not None:
            starting(rung)
        try:
            yield Step(rung, rung.measure(ground))
        except NotHere as reason:
            yield Step(rung, problem=str(reason))
        except (torch.OutOfMemoryError, OutOfMemory, ConfigError) as problem:
            first = str(problem).splitlines()[0]
            yield Step(rung, problem=f"it does not fit here ({first[:160]})")
        except Exception as problem:  # a mistake on one rung must not cost the others
            log.warning("rung %s failed", rung.key, exc_info=True)
            words = (str(problem).strip().splitlines() or [""])[0]
            yield Step(rung, problem=f"it failed ({type(problem).__name__}: {words[:160]})",
                       failed=True)
        released(ground.device)
    ground.kept.clear()
    released(ground.device)


def released(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def ground_of(limits: Limits, device: torch.device, *, shape: str | None = None,
              source: str | None = None, sizes: Sizes | None = None) -> Ground:
    """What to climb: random weights of a published shape, or a model's own."""
    sizes = sizes or (GPU if device.type == "cuda" else CPU)
    from infero.loading import dtype as dtypes
    from infero.loading import load

    best = str(dtypes.choose("auto", device)).removeprefix("torch.")
    if shape is not None:
        offline.shape_config(shape)  # an unknown name fails here, with the names there are
        return Ground(f"{shape} shape, random weights",
                      lambda dtype: offline.random_shape(shape, dtype, str(device)), device,
                      limits, sizes, best)
    from infero.loading.source import resolve

    is_gguf = resolve(source)[0].suffix.lower() == ".gguf"
    return Ground(source or "SmolLM2-135M-Instruct",
                  lambda dtype: load(source, dtype=dtype, device=device), device, limits, sizes,
                  best, (lambda: load(source, device=device, keep_quantized=True)) if is_gguf
                  else None)


# ---------------------------------------------------------------- for reading

COLUMNS = ("rung", "ch.", "tok/s", "gain", "in all", "GB/s", "limit", "p99 gap")
CAPTION = ("tok/s: of one request, first new token to last; below the line, of the crowd.\n"
           "gain: over the rung before. GB/s: bytes that had to move. limit: share of the\n"
           "roofline measured in this run. p99 gap: 1 % of the gaps between tokens are longer.")


def cells(step: Step, before: Sequence[Step], limits: Limits) -> list[str]:
    """One rung for reading, in the columns COLUMNS; `before` are the rungs below it."""
    head = [step.rung.name, str(step.rung.chapter)]
    work = step.work
    if work is None or step.found is None:
        return [*head, "–", "–", "–", "–", "–", "–"]
    climbed = [s for s in before if s.found is not None]
    gain = step.rate / climbed[-1].rate if climbed else 1.0
    words = f"{gain:.2f}×" if climbed else ""
    first = f"{step.rate / climbed[0].rate:,.1f}×" if climbed else ""
    gap = step.found.itl_p99_s
    return [*head, f"{step.rate:,.1f}", words, first, f"{work.bandwidth / 1e9:,.0f}",
            f"{100 * work.share(limits):.0f} %", f"{1e3 * gap:,.0f} ms" if gap else ""]


def remarks(steps: Sequence[Step]) -> list[str]:
    """What the table leaves out: why a rung is missing, and which one was slower."""
    lines, before = list[str](), None
    for step in steps:
        name = f"{step.rung.name} (chapter {step.rung.chapter})"
        if step.found is None:
            lines.append(f"{name}: {step.problem}.")
            continue
        if before is not None and step.rate < 0.99 * before.rate:
            lines.append(f"{name}: slower than {before.rung.name}, "
                         f"{step.rate / before.rate:.2f}× its rate.")
        before = step
    return lines
