"""infero beside the other engines of this machine, on the same weights, in one run.

    python -m benchmarks.compare [--shape 0.6b] [--limit 45] [--device D] [--smoke] [--out DIR]

On a GPU random bf16 weights of Qwen3-0.6B's shape (`benchmarks.compare_8b`: Llama-3-8B's), on a CPU
the real SmolLM2-135M. One request alone, prompt 128 and 256 new tokens, decoding only; and the
workload of 256 requests. `infero bench compare` prints the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

import infero
from infero import bench_compare, bench_limits, bench_throughput, results
from infero.bench_compare import Bench, Line
from infero.bench_limits import Limits
from infero.model import Model, random_model


def record(r: results.Recorder, lines: Sequence[Line], limits: Limits) -> None:
    """Values ENGINE_alone_rate, ENGINE_batch_rate, infero's gains over each, and a table."""
    ours = lines[0]
    rows: list[list[object]] = []
    for line in lines:
        alone, batch = line.alone_rate, line.batch_rate
        share = line.alone.share(limits) if line.alone else None
        rows.append([line.key, line.name, alone, share, batch, line.problem])
        if alone:
            r.value(f"{line.key}_alone_rate", line.alone_rates, unit="token/s",
                    note="one request, decoding only")
            if share:
                r.value(f"{line.key}_alone_share", share, unit="",
                        note="of the read limit of this run: weights and cache")
        if batch and line.run is not None:
            note = line.run.stopped or f"all {line.run.requests} requests"
            r.value(f"{line.key}_batch_rate", batch, unit="token/s", note=note)
        if line is ours:
            continue
        if alone and ours.alone_rate:
            r.value(f"gain_alone_over_{line.key}", ours.alone_rate / alone, unit="")
        if batch and ours.batch_rate:
            r.value(f"gain_batch_over_{line.key}", ours.batch_rate / batch, unit="")
    r.table("engines", [("key", ""), ("engine", ""), ("alone", "token/s"), ("share", ""),
                        ("batch", "token/s"), ("note", "")], rows)


def weights(args: argparse.Namespace) -> Model:
    if args.smoke:
        from benchmarks.chapter01 import SMOKE

        return random_model(SMOKE, dtype=torch.float32, device=args.device)
    if args.device == "cpu":
        return infero.load(device="cpu")
    return bench_throughput.random_shape(args.shape, "bfloat16", args.device)


def main(argv: Sequence[str] | None = None, name: str = "compare", shape: str = "0.6b") -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=list(bench_throughput.SHAPES), default=shape)
    parser.add_argument("--limit", type=float, default=45,
                        help="seconds after which a peer's batch is stopped")
    parser.add_argument("--only", nargs="+", choices=[e.key for e in bench_compare.ENGINES],
                        help="these engines (infero always)")
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    with results.record(name, argv=argv, out=args.out, device=args.device) as r:
        limits = bench_limits.measure(args.device, (torch.bfloat16, torch.float32),
                                      small=args.smoke)
        print(limits.words(), file=sys.stderr)
        r.value("read_bandwidth", limits.read_samples, unit="byte/s", note="measured in this run")
        model = weights(args)
        r.value("bits", 8 * model.dtype.itemsize, unit="bit", note=str(model.dtype))
        task = bench_compare.task_of(model, small=args.smoke, limit_s=args.limit)
        for key, value in (("prompt", len(task.prompt)), ("new", task.new),
                           ("prompt_tokens", task.job.prompt_tokens),
                           ("output_tokens", task.job.output_tokens)):
            r.value(key, value, unit="token")
        r.value("requests", len(task.job.prompts), unit="")
        lines: list[Line] = []
        chosen = [e for e in bench_compare.ENGINES
                  if not args.only or e.key in ("infero", *args.only)]
        for line in bench_compare.compare(Bench(model, task, limits), chosen):
            lines.append(line)
            row = bench_compare.cells(line, lines[0], limits)
            print(f"  {row[0]:<38} {'   '.join(row[1:])}  {line.problem}", file=sys.stderr,
                  flush=True)
        if lines[0].problem:
            raise RuntimeError(f"infero itself: {lines[0].problem}")
        record(r, lines, limits)


if __name__ == "__main__":
    main()
