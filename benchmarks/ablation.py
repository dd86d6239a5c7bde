"""What each of the engine's switches is worth: one request and 64, with one switch off at a time.

    python -m benchmarks.ablation [--shape 0.6b 8b] [--only WAY …] [--device cuda|cpu] [--smoke]
                                  [--out DIR]

Random bf16 weights of real shapes, prompts of 128 tokens, 128 new tokens each, decode steps only.
The whole engine runs, scheduler and drawing included. Chapter 16 and Lab 16 quote the results.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.chapter01 import SMOKE
from infero import bench_throughput, lanes, results, runner
from infero.engine import Engine, EngineConfig
from infero.model import Model, random_model
from infero.sampling import SamplingParams

NAMES = {"0.6b": "qwen3_06b", "8b": "llama3_8b"}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("everything on", {}),
    "no_overlap": ("host and device in turn", {"overlap": False}),
    "no_graphs": ("no CUDA graphs", {"cuda_graphs": False}),
    "no_fuse": ("one kernel an operation", {"fuse": False}),
    "torch": ("PyTorch's operations, no graphs", {"kernels": "torch"}),
    "compile": ("torch.compile for the decode step", {"compile": True}),
}


@dataclass(frozen=True)
class Sizes:
    crowd: int = 64
    prompt: int = 128
    new: int = 128
    runs: int = 3


class Waiting:
    """How long the host waits for drawn tokens: `Flight.read`, with a watch around it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.plain = runner.Flight.read

    def __enter__(self) -> Waiting:
        def read(flight: Any) -> list[int]:
            start = time.perf_counter()
            tokens = self.plain(flight)
            self.seconds += time.perf_counter() - start
            return tokens

        runner.Flight.read = read  # type: ignore
        return self

    def __exit__(self, *_: object) -> None:
        runner.Flight.read = self.plain  # type: ignore


def decode(engine: Engine, requests: int, prompt: int, new: int) -> tuple[float, float, float]:
    """Tokens a second, seconds of a step, and of these the host's own, once all decode."""
    vocab = engine.model.config.vocab_size
    draw = torch.Generator().manual_seed(requests)
    params = SamplingParams(temperature=0.6, seed=1, max_tokens=new, ignore_eos=True)
    for i in range(requests):
        ids = torch.randint(0, vocab, (prompt,), generator=draw).tolist()
        engine.add_request(str(i), ids, params)
    begun: set[str] = set()
    while len(begun) < requests:
        begun |= {chunk.id for chunk in engine.step() if chunk.token is not None}
    tokens = steps = 0
    with Waiting() as waiting:
        start = time.perf_counter()
        while engine.has_unfinished():
            tokens += sum(chunk.token is not None for chunk in engine.step())
            steps += 1
        took = time.perf_counter() - start
    return tokens / took, took / steps, (took - waiting.seconds) / steps


def one_way(r: results.Recorder, name: str, way: str, model: Model, sizes: Sizes) -> list[Any]:
    """Both loads with one switch off: [way, rate alone, rate of the crowd]."""
    words, switches = WAYS[way]
    blocks = (sizes.crowd + 1) * (-(-(sizes.prompt + sizes.new) // 16) + 1)
    found: list[float] = []
    begun = time.perf_counter()
    engine = Engine(model, EngineConfig(max_num_seqs=sizes.crowd, num_blocks=blocks,
                                        max_model_len=sizes.prompt + sizes.new,
                                        prefix_caching=False, **switches))
    for load, requests in (("alone", 1), ("crowd", sizes.crowd)):
        decode(engine, requests, sizes.prompt, min(4, sizes.new))  # compile, capture
        if load == "crowd":
            r.value(f"{name}_{way}_ready", time.perf_counter() - begun, unit="s",
                    note="from the engine to the first steps of both loads, warm-up included")
        runs = [decode(engine, requests, sizes.prompt, sizes.new)]
        while len(runs) < (sizes.runs if requests * sizes.new / runs[0][0] < 1 else 1):
            runs.append(decode(engine, requests, sizes.prompt, sizes.new))
        note = f"{words}; {requests} requests, prompt {sizes.prompt}, {sizes.new} new tokens each"
        found.append(r.value(f"{name}_{way}_{load}", [run[0] for run in runs], unit="token/s",
                             note=note))
        if way in ("full", "no_overlap"):
            end = "" if load == "crowd" else "_alone"
            r.value(f"{name}_{way}_step{end}", [run[1] for run in runs], unit="s", note=note)
        if way == "no_overlap" and load == "crowd":
            r.value(f"{name}_plan", [run[2] for run in runs], unit="s",
                    note="host, each step: schedule, fill, launch the graph, commit")
    return [words, *found]


def shape(r: results.Recorder, name: str, model: Model, ways: Sequence[str], sizes: Sizes) -> None:
    """Every way; one that fails is named and left out."""
    rows: list[list[Any]] = []
    for way in ways:
        begun = time.perf_counter()
        try:
            row = one_way(r, name, way, model, sizes)
            rows.append(row)
            print(f"  {name} {row[0]:36} {row[1]:9,.1f} alone {row[2]:9,.0f} crowd  tok/s  "
                  f"({time.perf_counter() - begun:.1f} s)", file=sys.stderr, flush=True)
        except Exception as problem:  # the others are worth having
            print(f"  {name} {way}: {type(problem).__name__}: {problem}"[:700], file=sys.stderr)
        gc.collect()
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
    if rows and rows[0][0] == WAYS["full"][0]:
        rows = [[*row, row[1] / rows[0][1], row[2] / rows[0][2]] for row in rows]
        r.table(name, [("engine", ""), ("alone", "token/s"), ("crowd", "token/s"),
                       ("alone_share", ""), ("crowd_share", "")], rows)
    keys = [f"{name}_{key}" for key in ("full_crowd", "no_overlap_crowd", "plan",
                                        "no_overlap_step")]
    if set(keys) <= set(r.values):
        full, without, plan, step = (r.values[key]["value"] for key in keys)
        r.value(f"{name}_overlap_gain", full / without, unit="", note="crowd")
        r.value(f"{name}_overlap_predicted", lanes.step_gain(plan, step - plan), unit="",
                note="by infero.lanes, from the steps without overlap")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--shape", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    if args.device == "cpu" and not args.smoke:
        parser.error("there is no GPU here: --smoke tries the program.")
    sizes = Sizes(3, 5, 6, 1) if args.smoke else Sizes()
    with results.record("ablation", argv=argv, out=args.out, device=args.device) as r:
        r.value("crowd", sizes.crowd, unit="", note="requests at once")
        for one in args.shape[: 1 if args.smoke else None]:
            model = (random_model(SMOKE, dtype=torch.float32 if args.device == "cpu"
                                  else torch.bfloat16, device=args.device)
                     if args.smoke else bench_throughput.random_shape(one, "bfloat16",
                                                                      args.device))
            shape(r, NAMES[one], model, args.only, sizes)
            del model
            gc.collect()
            if args.device == "cuda":
                torch.cuda.empty_cache()
        ratios = [r.values[f"{NAMES[one]}_full_alone"]["value"]
                  / r.values[f"{NAMES[one]}_torch_alone"]["value"] for one in args.shape
                  if f"{NAMES[one]}_torch_alone" in r.values
                  and f"{NAMES[one]}_full_alone" in r.values]
        if ratios:
            r.value("whole_gain", statistics.median(ratios), unit="",
                    note="everything on over PyTorch's operations, one request")


if __name__ == "__main__":
    main()
