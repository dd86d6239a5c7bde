"""`infero bench throughput`: a batch of requests, all there from the start, as fast as it goes.

Chapter 10 reads its table. The same engine serves the same requests twice: continuously (a freed
slot is refilled in the next step) and in static groups that run until their longest request ends.
`batching.py` says from the lengths alone how many forward passes each needs; their ratio is the
ideal gain, reached when every pass costs the same and scheduling nothing. `peers.py` adds
transformers.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from infero import batching
from infero.engine import Engine, EngineConfig
from infero.errors import ParameterError, PromptError
from infero.model import Model, ModelConfig
from infero.outputs import Chunk
from infero.sampling import SamplingParams

SHAPES = {"0.6b": "qwen3-0.6b", "8b": "llama-3-8b"}  # short names of roofline.MODELS
ROPE_THETA = {"qwen3-0.6b": 1e6, "llama-3-8b": 5e5, "llama-3-70b": 5e5, "smollm2-135m": 1e5}

# Called after every step with requests finished and tokens made so far.
Seen = Callable[[int, int], None]


# ---------------------------------------------------------------- the work


@dataclass(frozen=True)
class Job:
    """Requests to serve: prompts as token ids, and how many tokens to make for each."""

    prompts: list[list[int]]
    lengths: list[int]
    temperature: float = 0.0
    seed: int | None = 0

    @property
    def longest(self) -> int:
        """The longest prompt and the longest output: more than this no request can reach."""
        return max(map(len, self.prompts)) + max(self.lengths)

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def output_tokens(self) -> int:
        return sum(self.lengths)


def draw_lengths(spec: str, n: int, draw: random.Random) -> list[int]:
    """n lengths as `spec` says: "64" or "fixed:64", "uniform:LOW:HIGH", "geometric:MEAN:CAP".

    The geometric distribution (memoryless, like the ends of many conversations) starts at 1; a
    length above the cap becomes the cap, so the mean comes out a little below MEAN.
    """
    kind, *numbers = (spec if ":" in spec else f"fixed:{spec}").split(":")
    try:
        values = [int(number) for number in numbers]
        if kind == "fixed":
            (length,) = values
            low, found = length, [length] * n
        elif kind == "uniform":
            low, high = values
            found = [draw.randint(low, high) for _ in range(n)]
        elif kind == "geometric":
            mean, cap = values
            low = min(mean - 1, cap)  # a mean of 1 leaves nothing to draw
            found = [min(cap, 1 + int(math.log(1 - draw.random()) / math.log1p(-1 / mean)))
                     for _ in range(n)] if low > 0 else []
        else:
            raise ValueError
    except ValueError:
        raise ParameterError(f"Lengths {spec!r} are not understood; write 64, fixed:64, "
                             "uniform:100:1024 or geometric:32:256 (mean, cap).") from None
    if low < 1:
        raise ParameterError(f"Lengths {spec!r} go down to {low}; a request has at least 1 token "
                             "(and a geometric mean is above 1).")
    return found


def make_job(vocab: int, requests: int, lengths: str, prompts: str, seed: int,
             temperature: float = 0.0) -> Job:
    """Random prompts of token ids below `vocab`, of lengths drawn as `prompts` says."""
    if requests < 1:
        raise ParameterError(f"requests is {requests}; it must be at least 1.")
    draw = random.Random(seed)
    sizes = draw_lengths(prompts, requests, draw)
    ids = [[draw.randrange(vocab) for _ in range(size)] for size in sizes]
    return Job(ids, draw_lengths(lengths, requests, draw), temperature, seed)


def nano_vllm_job(requests: int = 256) -> Job:
    """The workload of nano-vllm's own benchmark: lengths uniform in 100 to 1024, seed 0.

    First all prompts are drawn, length and tokens of each, then all output lengths: with 256
    requests 142,827 prompt and 133,966 output tokens. Temperature 0.6, no end of sequence.
    """
    draw = random.Random(0)
    prompts = [[draw.randint(0, 10000) for _ in range(draw.randint(100, 1024))]
               for _ in range(requests)]
    return Job(prompts, [draw.randint(100, 1024) for _ in range(requests)], 0.6, None)


def shape_config(name: str) -> ModelConfig:
    """The configuration of a published shape: "0.6b", "8b" or a name of roofline.MODELS."""
    from infero import roofline

    shape = roofline.shape(SHAPES.get(name.lower(), name))
    key = next(k for k, v in roofline.MODELS.items() if v is shape)
    return ModelConfig(
        architecture=shape.architecture, vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_layers=shape.num_layers, num_heads=shape.num_heads, num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim, max_context=shape.max_context, qk_norm=shape.qk_norm,
        tie_embeddings=shape.tie_embeddings, norm_eps=1e-6 if shape.qk_norm else 1e-5,
        rope_theta=ROPE_THETA[key])


def random_shape(name: str, dtype: str, device: str) -> Model:
    """A model of a published shape with random weights: its speed is that of the real one."""
    import torch

    from infero.model import random_model

    model = random_model(shape_config(name), dtype=getattr(torch, dtype), device=device)
    model.name = f"{name} shape, random weights"
    return model


def engine_config(job: Job, slots: int, budget: int | None = None, **options: object
                  ) -> EngineConfig:
    """An engine of `slots` requests whose pool need not be larger than the job can fill.

    Unless given, the budget of a step is enough for a static group's prompts, up to 2,048 tokens.
    """
    options = {k: v for k, v in options.items() if v is not None}
    budget = budget or max(512, slots, min(2048, slots * max(map(len, job.prompts))))
    return EngineConfig(max_num_seqs=slots, max_num_batched_tokens=budget,
                        max_model_len=job.longest, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- measuring


@dataclass
class Run:
    """One way to serve the job, measured. `tokens` are those that were asked for."""

    name: str
    slots: int
    duration_s: float = 0.0
    requests: int = 0
    tokens: int = 0
    steps: int = 0
    computed: int = 0  # tokens that went through the model
    cached_tokens: int = 0
    prompt_tokens: int = 0
    preemptions: int = 0
    step_s: float = 0.0
    forward_s: float = 0.0
    peak_kv: float = 0.0  # largest share of the pool in use
    stopped: str = ""  # "Ctrl-C" or "time limit" where it was not finished
    token_steps: list[int] = field(default_factory=list)  # useful tokens of each step

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_s if self.duration_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.duration_s if self.duration_s else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Prompt and output tokens that one forward pass computes."""
        return self.computed / self.steps if self.steps else 0.0

    @property
    def utilisation(self) -> float:
        """Wanted tokens over slots times passes: the share of the batch that did work."""
        return self.tokens / (self.slots * self.steps) if self.steps else 0.0

    @property
    def overhead(self) -> float:
        """Share of the steps' time that was not the forward pass."""
        return 1 - self.forward_s / self.step_s if self.step_s else 0.0


def params_of(job: Job, i: int, length: int | None = None) -> SamplingParams:
    """Request i's parameters; it ends by its length alone."""
    seed = None if job.seed is None else job.seed + i
    return SamplingParams(temperature=job.temperature, max_tokens=length or job.lengths[i],
                          ignore_eos=True, seed=seed)


def continuous(engine: Engine, job: Job, *, limit_s: float = math.inf, seen: Seen | None = None
               ) -> Run:
    """All requests at once into the queue; the engine refills a slot as soon as it is free."""
    return _measure(engine, job, "continuous", [range(len(job.prompts))], list(job.lengths),
                    limit_s, seen)


def static(engine: Engine, job: Job, *, drop_finished: bool = False, limit_s: float = math.inf,
           seen: Seen | None = None) -> Run:
    """Groups of max_num_seqs requests, in order; the next starts when the longest has ended.

    A request that is done keeps its row of the batch busy until then, as in a static batch of any
    framework. With drop_finished it leaves the batch and only its slot stays empty: cheaper than
    static batching is, the bound for an engine that can do that.
    """
    slots, n = engine.config.max_num_seqs, len(job.prompts)
    groups = [range(first, min(first + slots, n)) for first in range(0, n, slots)]
    until = list(job.lengths)
    if not drop_finished:
        for group in groups:
            longest = max(job.lengths[i] for i in group)
            room = engine.max_model_len
            for i in group:
                until[i] = min(longest, room - len(job.prompts[i]))
    name = "static, shrinking" if drop_finished else "static"
    return _measure(engine, job, name, groups, until, limit_s, seen)


def _measure(engine: Engine, job: Job, name: str, groups: Sequence[Sequence[int]],
             until: list[int], limit_s: float, seen: Seen | None) -> Run:
    """Serve group after group, each request for `until` tokens; start from an empty cache."""
    engine.reset()
    run = Run(name, engine.config.max_num_seqs)
    before, left = replace(engine.stats), list(job.lengths)
    ends = [False] * len(left)
    start_s = time.perf_counter()
    try:
        for group in groups:
            for i in group:
                engine.add_request(str(i), job.prompts[i], params_of(job, i, until[i]))
            while engine.has_unfinished():
                if time.perf_counter() - start_s > limit_s:
                    run.stopped = f"time limit of {limit_s:g} s"
                    break
                _take(engine.step(), run, left, ends)
                used = 1 - len(engine.scheduler.pool.free) / engine.num_blocks
                run.peak_kv = max(run.peak_kv, used)
                if seen is not None:
                    seen(run.requests, run.tokens)
            if run.stopped:
                break
    except KeyboardInterrupt:
        run.stopped = "Ctrl-C"
    run.duration_s = time.perf_counter() - start_s
    engine.reset()
    now = engine.stats
    run.steps = now.steps - before.steps
    run.computed = now.tokens_computed - before.tokens_computed
    run.preemptions = now.preemptions - before.preemptions
    run.cached_tokens = now.cached_tokens - before.cached_tokens
    run.prompt_tokens = now.prompt_tokens - before.prompt_tokens
    run.step_s = now.step_s - before.step_s
    run.forward_s = now.forward_s - before.forward_s
    return run


def _take(chunks: Sequence[Chunk], run: Run, left: list[int], ends: list[bool]) -> None:
    """Count the tokens that were asked for; what a static batch makes beyond them is waste."""
    useful = 0
    for chunk in chunks:
        i = int(chunk.id)
        if chunk.token is not None and left[i] > 0:
            left[i] -= 1
            useful += 1
        if left[i] == 0 and not ends[i]:
            ends[i] = True
            run.requests += 1
    run.tokens += useful
    run.token_steps.append(useful)


def warm_up(engine: Engine, job: Job, tokens: int = 4) -> None:
    """A few steps of the job's own shape, so that nothing is done for the first time later."""
    n = min(len(job.prompts), engine.config.max_num_seqs)
    run = continuous(engine, replace(job, prompts=job.prompts[:n],
                                     lengths=[min(tokens, k) for k in job.lengths[:n]]))
    if run.stopped:
        raise KeyboardInterrupt


def ready(engine: Engine) -> None:
    """Let the engine compile and capture what it will run (chapter 16), before anything is timed.
    """
    prepare = getattr(engine, "warm_up", None)
    if prepare is not None:
        prepare()


def alone(engine: Engine, prompt: list[int], new: int, runs: int) -> list[float]:
    """Seconds from the first to the last of `new` tokens of one greedy request, of each run.

    Decoding only: the prompt is done when the clock starts. A run before the first warms up.
    """
    ready(engine)
    params = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)
    found = []
    for run in range(runs + 1):
        engine.reset()
        engine.add_request(str(run), prompt, params)
        times = []
        while engine.has_unfinished():
            chunks = engine.step()
            times += [time.perf_counter() for chunk in chunks if chunk.token is not None]
        if len(times) != new:
            raise RuntimeError(f"The request got {len(times)} of {new} tokens.")
        found.append(times[-1] - times[0])
    return found[1:]


# ---------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Ideal:
    """What the lengths alone say about batching with so many slots."""

    static_steps: int
    continuous_steps: int

    @property
    def gain(self) -> float:
        return self.static_steps / self.continuous_steps


def ideal_of(job: Job, slots: int) -> Ideal:
    """Forward passes of both ways if all prompts were free and all passes equal."""
    return Ideal(batching.static_steps(job.lengths, slots),
                 batching.continuous_steps(job.lengths, slots))


def share_reached(ideal: Ideal, run: Run, base: Run) -> float:
    """The measured gain in tokens a second over the ideal one."""
    return run.tokens_per_s / base.tokens_per_s / ideal.gain


def check_fits(model: Model, job: Job) -> None:
    """PromptError if a request is longer than the model's context."""
    if job.longest > model.config.max_context:
        raise PromptError(
            f"A request may have {job.longest} tokens with its prompt, but this model's "
            f"context is {model.config.max_context}; lower --lengths or --prompt-tokens.")


def table_rows(runs: Sequence[Run]) -> list[list[str]]:
    """The runs for reading: one row each, in the columns COLUMNS."""
    def row(r: Run) -> list[str]:
        own = [f"{100 * r.overhead:.1f} %", f"{100 * r.peak_kv:.0f} %"] if r.step_s else ["–", "–"]
        return [r.name + (" (stopped)" if r.stopped else ""), f"{r.requests_per_s:.3g}",
                f"{r.tokens_per_s:,.1f}", f"{r.steps:,}", f"{r.tokens_per_step:.1f}",
                f"{100 * r.utilisation:.0f} %", *own]

    return [row(run) for run in runs]


COLUMNS = ("batching", "req/s", "tok/s", "steps", "tok/step", "used", "overhead", "KV peak")
CAPTION = ("tok/s: output tokens a second. tok/step: prompt and output tokens a forward pass. "
           "used: wanted tokens\nover slots times passes. overhead: the steps' time outside the "
           "forward pass. KV peak: share of the pool.")


def sentences(job: Job, runs: Sequence[Run]) -> list[str]:
    """What the table means: the ideal gain, the share of it reached, preemptions, prefix hits."""
    first = runs[0]
    ideal = ideal_of(job, first.slots)
    lines = [
        f"From the lengths alone: static batching needs {ideal.static_steps:,} passes, continuous "
        f"{ideal.continuous_steps:,}; the ideal gain with {first.slots} slots is "
        f"{ideal.gain:.2f}×."]
    if not first.stopped:
        lines.append(f"Continuous batching took {first.steps:,} passes: "
                     f"{100 * ideal.continuous_steps / max(first.steps, 1):.0f} % of the ideal.")
    for run in runs[1:]:
        if run.stopped or first.stopped or not run.tokens_per_s:
            continue
        gain = first.tokens_per_s / run.tokens_per_s
        share = (f", {100 * share_reached(ideal, first, run):.0f} % of the ideal gain"
                 if run.name == "static" else "")
        lines.append(f"Against {run.name}: {gain:.2f}× the output tokens a second{share}.")
    hits = first.cached_tokens / first.prompt_tokens if first.prompt_tokens else 0.0
    lines.append(f"{first.preemptions} preemptions; {100 * hits:.1f} % of the prompt tokens came "
                 "from the prefix cache.")
    lines += [f"{run.name} was stopped ({run.stopped}) after {run.duration_s:.1f} s: its numbers "
              f"are those of {run.requests} of {len(job.prompts)} requests."
              for run in runs if run.stopped]
    return lines
