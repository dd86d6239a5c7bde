"""The 256-request workload on random bf16 weights of real shapes, and where its time goes.

    python -m benchmarks.throughput [--shape 0.6b 8b] [--quantization int4] [--budget 8192]
                                    [--seconds 100] [--device cuda|cpu] [--smoke] [--out DIR]

The workload is nano-vllm's own (256 requests, prompts and outputs uniform in 100 to 1,024 tokens,
temperature 0.6, no end of sequence), served by the engine with all its switches at their defaults
and a KV cache of what the memory budget leaves. Every captured step is captured before the clock
starts (`Engine.warm_up`). Then a part of it runs again under a profiler, for the device's share of
a decode step and its kernels. A run is stopped after --seconds; its rate is then that of what was
done, and the note says so. `benchmarks.decode_speed` measures one request alone.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from benchmarks import partial
from benchmarks.chapter01 import SMOKE
from infero import bench_limits, results
from infero import bench_throughput as b
from infero.bench_throughput import Job, Run
from infero.engine import Engine
from infero.model import Model, random_model

NAMES = {"0.6b": "qwen3_06b", "8b": "llama3_8b"}
PROMPT, NEW = 128, 256  # of the request alone
POINTS = 400  # of the run's progress that are written down at most
BARS = {"qwen3_06b": 17_000, "llama3_8b": 7_400}  # output tokens/s on an H100
KERNELS = 24  # most expensive ones that are written down


def job_of(model: Model, smoke: bool) -> Job:
    """The workload; its totals are checked against the published ones."""
    job = b.nano_vllm_job(6 if smoke else 256)
    if smoke:
        vocab = model.config.vocab_size
        return replace(job, prompts=[[t % vocab for t in p[:40]] for p in job.prompts],
                       lengths=[n % 8 + 1 for n in job.lengths])
    if (job.prompt_tokens, job.output_tokens) != (142_827, 133_966):
        raise RuntimeError(f"The workload has {job.prompt_tokens} prompt and {job.output_tokens} "
                           "output tokens, not 142,827 and 133,966: the generator has changed.")
    return job


# ---------------------------------------------------------------- the run


@dataclass(frozen=True)
class Moment:
    """After a step: the clock and the engine's running totals."""

    now_s: float
    computed: int
    sampled: int
    step_s: float
    forward_s: float
    tokens: int


def served(engine: Engine, job: Job, limit_s: float = math.inf) -> tuple[Run, list[Moment]]:
    """Serve the job, noting the totals after each step."""
    stats, moments = engine.stats, list[Moment]()

    def seen(_: int, tokens: int) -> None:
        moments.append(Moment(time.perf_counter(), stats.tokens_computed, stats.tokens_sampled,
                              stats.step_s, stats.forward_s, tokens))

    run = b.continuous(engine, job, limit_s=limit_s, seen=seen)
    if run.stopped == "Ctrl-C":
        raise KeyboardInterrupt
    if not run.stopped and run.tokens != job.output_tokens:
        raise RuntimeError(f"{run.tokens} of {job.output_tokens} tokens were made: find the "
                           "mistake first.")
    return run, moments


def phases(moments: Sequence[Moment]) -> dict[str, list[tuple[float, int]]]:
    """(seconds, tokens computed) of the steps that only decode, and of those that also prefill."""
    found: dict[str, list[tuple[float, int]]] = {"decode": [], "prefill": []}
    for a, c in pairwise(moments):
        computed, sampled = c.computed - a.computed, c.sampled - a.sampled
        if computed:
            kind = "prefill" if computed > sampled else "decode"
            found[kind].append((c.now_s - a.now_s, computed))
    return found


def workload(r: results.Recorder, name: str, engine: Engine, job: Job, limit_s: float,
             bandwidth: float) -> None:
    """Serve the job continuously; rate, passes, and where the time of a step goes."""
    start_s = time.perf_counter()
    b.ready(engine)
    r.value(f"{name}_warm_up", time.perf_counter() - start_s, unit="s",
            note="to compile and capture every step, before the clock starts")
    short = replace(job, prompts=[p[:64] for p in job.prompts[:8]], lengths=[4] * 8)
    b.warm_up(engine, replace(short, lengths=short.lengths[: len(short.prompts)]))
    start_s = time.perf_counter()
    run, moments = served(engine, job, limit_s)
    note = (f"stopped after {run.duration_s:.0f} s: {run.requests} of {len(job.prompts)} requests "
            f"were done, {run.tokens} of {job.output_tokens} tokens" if run.stopped else
            f"all {len(job.prompts)} requests")
    r.value(f"{name}_rate", run.tokens_per_s, unit="token/s", note=note)
    r.value(f"{name}_time", run.duration_s, unit="s", note=note)
    r.value(f"{name}_done", run.tokens / job.output_tokens, unit="",
            note="share of the output tokens that were made")
    r.value(f"{name}_prompt_tokens", job.prompt_tokens, unit="token")
    r.value(f"{name}_output_tokens", job.output_tokens, unit="token")
    r.value(f"{name}_passes", run.steps, unit="")
    r.value(f"{name}_tokens_per_pass", run.tokens_per_step, unit="token")
    r.value(f"{name}_pass", run.duration_s / max(run.steps, 1), unit="s", n=max(run.steps, 1),
            note="mean of a step")
    r.value(f"{name}_forward_share", run.forward_s / run.step_s, unit="",
            note="of the steps' time: launching a step and waiting for its tokens")
    r.value(f"{name}_preemptions", run.preemptions, unit="")
    r.value(f"{name}_kv_blocks", engine.num_blocks, unit="")
    r.value(f"{name}_kv_peak", run.peak_kv, unit="", note="largest share of the pool in use")
    if not run.stopped:
        work = bench_limits.served(engine.model, [len(p) for p in job.prompts], job.lengths,
                                   run.cached_tokens, run.steps, run.duration_s)
        r.value(f"{name}_bandwidth", work.bandwidth, unit="byte/s",
                note="weights a pass, and every request's cache a step, over the whole run")
        r.value(f"{name}_bandwidth_share", work.bandwidth / bandwidth, unit="",
                note="of the read limit")
    for kind, steps in phases(moments).items():
        if steps:
            seconds, tokens = [s for s, _ in steps], [t for _, t in steps]
            words = "steps that only decode" if kind == "decode" else "steps with prompt tokens"
            r.value(f"{name}_{kind}_steps", len(steps), unit="", note=words)
            r.value(f"{name}_{kind}_time", sum(seconds), unit="s", note=f"in all {words}")
            r.value(f"{name}_{kind}_step", seconds, unit="s", note=words)
            r.value(f"{name}_{kind}_tokens", statistics.mean(tokens), unit="token",
                    n=len(tokens), note=f"computed, mean of {words}")
    every = max(1, len(moments) // POINTS)
    r.table(f"{name}_progress", [("time", "s"), ("tokens", "token")],
            [[m.now_s - start_s, m.tokens] for m in moments[::every]])
    bar = BARS.get(name)
    said = "" if bar is None or len(job.prompts) < 256 else (
        f"; bar {bar:,}: {'reached' if run.tokens_per_s >= bar else 'MISSED'}")
    print(f"  {name}: {run.tokens_per_s:,.0f} output tokens/s ({note}){said}", file=sys.stderr,
          flush=True)


# ---------------------------------------------------------------- the device's share


def profiled(r: results.Recorder, name: str, engine: Engine, job: Job, before: int, steps: int
             ) -> None:
    """Kernels of `steps` steps in the middle of the job, and the device's share of a step's time.

    The wall clock is that of the steps just before, which no profiler slowed down.
    """
    from torch.profiler import ProfilerActivity, profile

    engine.reset()
    for i, prompt in enumerate(job.prompts):
        engine.add_request(str(i), prompt, b.params_of(job, i))
    stats = engine.stats
    first, times = stats.steps, list[float]()
    while engine.has_unfinished() and stats.steps - first < before:
        begun, sampled = time.perf_counter(), stats.tokens_sampled
        computed = stats.tokens_computed
        engine.step()
        if stats.tokens_computed - computed == stats.tokens_sampled - sampled > 0:
            times.append(time.perf_counter() - begun)
    torch.cuda.synchronize()
    first, times = stats.steps, times[-steps:]
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        while engine.has_unfinished() and stats.steps - first < steps:
            engine.step()
        torch.cuda.synchronize()
    done = max(stats.steps - first, 1)
    engine.reset()
    events = [(e.name, e.time_range.start, e.time_range.end) for e in trace.events()
              if e.device_type == torch.autograd.DeviceType.CUDA]
    if not events or not times:
        print(f"  {name}: the profiler saw nothing", file=sys.stderr)
        return
    rows, busy = by_kernel(events, done), covered_us([(a, c) for _, a, c in events]) * 1e-6 / done
    r.value(f"{name}_step_device", busy, unit="s", n=done,
            note="while a kernel or a copy of a step ran, by the profiler")
    r.value(f"{name}_step_wall", times, unit="s",
            note="steps that only decode, just before, without the profiler")
    r.value(f"{name}_device_share", busy / statistics.median(times), unit="",
            note="of a decode step's wall time; what is missing to 1 the device stands idle")
    r.value(f"{name}_launches", len(events) / done, unit="", note="kernels and copies of a step")
    r.table(f"{name}_kernels", [("kernel", ""), ("calls", ""), ("time", "s"), ("share", "")],
            [[key, count, spent, spent / busy] for key, count, spent in rows[:KERNELS]])
    print(f"  {name}: a decode step takes {1e3 * statistics.median(times):.2f} ms, the device "
          f"works for {1e3 * busy:.2f} ms of it", file=sys.stderr, flush=True)


def covered_us(spans: Sequence[tuple[float, float]]) -> float:
    """Time in which at least one span runs: kernels may overlap each other's ends."""
    total, until = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def by_kernel(events: Sequence[tuple[str, float, float]], steps: int
              ) -> list[tuple[str, float, float]]:
    """(kernel, calls a step, seconds a step), the most expensive first; times in µs."""
    found: dict[str, list[float]] = {}
    for key, start, end in events:
        found.setdefault(key[:120], []).append(end - start)
    rows = [(key, len(times) / steps, sum(times) * 1e-6 / steps) for key, times in found.items()]
    return sorted(rows, key=lambda row: -row[2])


# ---------------------------------------------------------------- main


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--shape", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--quantization", choices=["int8", "int4", "fp8"],
                        help="also with quantized weights")
    parser.add_argument("--seconds", type=float, default=60,
                        help="stop the workload after so long")
    parser.add_argument("--slots", type=int, default=256, help="requests that may run at once")
    parser.add_argument("--budget", type=int, default=8192, help="tokens of a step at most")
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    device, smoke = torch.device(args.device), args.smoke
    if device.type == "cpu" and not smoke:
        parser.error("there is no GPU here: --smoke tries the program, `infero bench throughput` "
                     "measures on a CPU.")
    if args.budget < max(2048, args.slots):
        parser.error(f"--budget {args.budget}: at least 2048 and --slots")
    failed: list[str] = []
    with results.record("throughput", argv=argv, out=args.out, device=args.device) as r:
        limits = bench_limits.measure(args.device, (torch.bfloat16,), small=smoke)
        print(limits.words(), file=sys.stderr)
        r.value("read_bandwidth", limits.read_samples, unit="byte/s", note="measured in this run")
        for shape in args.shape:
            model = (random_model(SMOKE, dtype=torch.bfloat16, device=device) if smoke
                     else b.random_shape(shape, "bfloat16", args.device))
            kinds: list[dict[str, Any]] = [{}]
            kinds += [{"quantization": args.quantization}] if args.quantization else []
            for options in kinds:
                name = "_".join([NAMES[shape], *options.values()])
                try:
                    one_shape(r, name, model, limits, args, **options)
                except Exception:  # one model must not cost the others
                    traceback.print_exc()
                    failed.append(name)
                partial.save(r, argv, args.out, args.device)
                released(device)
            del model
            released(device)
    if failed:
        print(f"These failed, find out why: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def one_shape(r: results.Recorder, name: str, model: Model, limits: bench_limits.Limits,
              args: argparse.Namespace, **options: Any) -> None:
    """One request alone, the workload, and its profile, for one model."""
    smoke, cuda = args.smoke, model.device.type == "cuda"
    job = job_of(model, smoke)
    prompt, new, runs = (8, 4, 2) if smoke else (PROMPT, NEW, 2)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    engine = Engine(model, b.engine_config(job, 1, None, **options))
    seconds = b.alone(engine, [7] * prompt, new, runs)
    r.value(f"{name}_alone_rate", [(new - 1) / s for s in seconds], unit="token/s",
            note=f"one request, prompt {prompt}, {new} new tokens, decode only")
    work = bench_limits.decode(engine.model, prompt, new, statistics.median(seconds))
    r.value(f"{name}_alone_share", work.bandwidth / limits.read_bytes_per_s, unit="",
            note="of the read limit, weights and cache")
    print(f"  {name}: alone {work.rate:,.1f} tokens/s, "
          f"{100 * work.bandwidth / limits.read_bytes_per_s:.0f} % of the read limit",
          file=sys.stderr, flush=True)
    if cuda:
        r.value(f"{name}_alone_memory_peak", torch.cuda.max_memory_allocated(), unit="byte",
                note="one request alone: weights, a cache for one, and all that a step takes")
    del engine
    released(model.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    slots, budget = (4, 64) if smoke else (args.slots, args.budget)
    engine = Engine(model, b.engine_config(job, slots, budget, **options))
    workload(r, name, engine, job, args.seconds, limits.read_bytes_per_s)
    if cuda:
        r.value(f"{name}_memory_peak", torch.cuda.max_memory_allocated(), unit="byte",
                note="weights, the whole cache and all that a step takes")
        profiled(r, name, engine, job, *((4, 4) if smoke else (200, 24)))
    del engine
    released(model.device)


def released(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
