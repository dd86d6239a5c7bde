"""The book's spine: one optimisation after another on one model, each with its share of the limit.

    python -m benchmarks.ladder [--shape 0.6b 8b] [--device cuda|cpu] [--smoke] [--out DIR]

On a GPU random bf16 weights of the shapes of Qwen3-0.6B and Llama-3-8B climb it, on a CPU the real
SmolLM2-135M. `infero bench ladder` prints the same. The limits are measured first, in this run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks import partial
from infero import bench_ladder, bench_limits, bench_throughput, results
from infero.bench_ladder import Ground, Step
from infero.bench_limits import Limits
from infero.model import Model

NAMES = {"0.6b": "qwen3_06b", "8b": "llama3_8b"}
COLUMNS = [("key", ""), ("rung", ""), ("chapter", ""), ("rate", "token/s"), ("limit", "token/s"),
           ("share", ""), ("bandwidth", "byte/s"), ("gain", ""), ("itl_p99", "s"), ("crowd", ""),
           ("note", "")]


def record(r: results.Recorder, name: str, steps: Sequence[Step], limits: Limits) -> None:
    """Values NAME_RUNG_rate, _share, _bandwidth, _limit, and the table NAME of all rungs."""
    rows: list[list[object]] = []
    before: Step | None = None
    for step in steps:
        rung, work = step.rung, step.work
        gain = step.rate / before.rate if before and step.rate else None
        rows.append([rung.key, rung.name, rung.chapter, step.rate or None,
                     work.limit(limits) if work else None, work.share(limits) if work else None,
                     work.bandwidth if work else None, gain,
                     step.found.itl_p99_s if step.found else None, int(rung.crowd),
                     step.problem or rung.line])
        if work is None or step.found is None:
            continue
        key = f"{name}_{rung.key}"
        r.value(f"{key}_rate", [w.rate for w in step.found.works], unit="token/s", note=rung.line)
        r.value(f"{key}_share", work.share(limits), unit="", note="of the roofline")
        r.value(f"{key}_limit", work.limit(limits), unit="token/s",
                note="what the measured limits allow for the same bytes and operations")
        r.value(f"{key}_bandwidth", work.bandwidth, unit="byte/s", note="bytes that had to move")
        if gain is not None:
            r.value(f"{key}_gain", gain, unit="", note=f"over the rung before, {before.rung.name}"
                    if before else "")
        if step.found.itl_p99_s:
            r.value(f"{key}_itl_p99", step.found.itl_p99_s, unit="s",
                    note="99th percentile of the gaps between two tokens of a request")
        before = step
    done = [s for s in steps if s.found is not None]
    if len(done) > 1:
        alone = [s for s in done if not s.rung.crowd]
        r.value(f"{name}_gain_alone", alone[-1].rate / alone[0].rate, unit="",
                note=f"{alone[-1].rung.name} over {alone[0].rung.name}")
        r.value(f"{name}_gain", done[-1].rate / done[0].rate, unit="",
                note=f"{done[-1].rung.name} over {done[0].rung.name}")
    r.table(name, COLUMNS, rows)


def climbed(ground: Ground, save: Callable[[list[Step]], None]) -> list[Step]:
    """All rungs, said aloud and saved as they come."""
    steps: list[Step] = []
    for step in bench_ladder.climb(ground):
        row = bench_ladder.cells(step, steps, ground.limits)
        print(f"  {row[0]:<20} {'   '.join(row[2:]) if step.found else step.problem}",
              file=sys.stderr, flush=True)
        steps.append(step)
        save(steps)
    return steps


def grounds(args: argparse.Namespace, limits: Limits) -> list[tuple[str, Callable[[], Ground]]]:
    """(name in the results, what to climb)."""
    device = torch.device(args.device)
    sizes = bench_ladder.SMOKE if args.smoke else None
    if args.device == "cpu" and not args.smoke:
        return [("smollm2", lambda: bench_ladder.ground_of(limits, device))]
    if args.smoke:
        from benchmarks.chapter01 import SMOKE
        from infero.model import random_model

        def make(dtype: str) -> Model:
            return random_model(SMOKE, dtype=getattr(torch, dtype), device=device)

        assert sizes is not None
        return [("smoke", lambda: Ground("smoke", make, device, limits, sizes))]
    return [(NAMES[shape], lambda shape=shape: bench_ladder.ground_of(  # type: ignore[misc]
        limits, device, shape=shape)) for shape in args.shape]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--shape", nargs="+", choices=list(bench_throughput.SHAPES),
                        default=list(bench_throughput.SHAPES), help="on a GPU")
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    failed: list[str] = []
    with results.record("ladder", argv=argv, out=args.out, device=args.device) as r:
        limits = bench_limits.measure(args.device, small=args.smoke)
        print(limits.words(), file=sys.stderr)
        r.value("read_bandwidth", limits.read_samples, unit="byte/s", note="measured in this run")
        for dtype, rate in limits.flops_per_s.items():
            r.value(f"matmul_{str(dtype).removeprefix('torch.')}", rate, unit="flop/s",
                    note="measured in this run, best of several")
        for name, make in grounds(args, limits):
            begun_s = time.perf_counter()
            print(name, file=sys.stderr)

            def save(steps: list[Step], name: str = name) -> None:
                record(r, name, steps, limits)
                partial.save(r, argv, args.out, args.device)

            steps = climbed(make(), save)
            failed += [f"{name}: {step.rung.key}" for step in steps if step.failed]
            r.value(f"{name}_time", time.perf_counter() - begun_s, unit="s",
                    note="to climb the whole ladder, weights and warm-up included")
    if failed:
        print(f"These rungs failed, find out why: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
