"""One request alone, decoding only: 8B in four number formats and 0.6B, as shares of the limit.

    python -m benchmarks.decode_speed [--only llama3_8b_int4 ...] [--runs 3] [--smoke] [--out DIR]

As the table of the peers defines it: random weights, prompt 128, 256 new tokens, greedy, no end of
sequence, the rate from the first new token to the last. Every model runs through `infero.LLM` with
all its switches at their defaults: CUDA graphs, fused kernels, the host a step ahead. The read
limit is measured in this run; the bytes are the weights as they are stored, and the cache.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks import partial
from benchmarks.chapter01 import SMOKE
from infero import bench_limits, bench_throughput, results
from infero.llm import LLM
from infero.model import Model, random_model
from infero.sampling import SamplingParams

PROMPT, NEW = 128, 256


@dataclass(frozen=True)
class Case:
    """One line: a shape in a number format, and the rate that PEERS asks for on an H100."""

    name: str
    shape: str
    quantization: str | None = None
    bar: float | None = None


CASES = (
    Case("qwen3_06b_bf16", "0.6b", None, 750),
    Case("qwen3_06b_int8", "0.6b", "int8"),
    Case("qwen3_06b_int4", "0.6b", "int4"),
    Case("llama3_8b_bf16", "8b", None, 168),
    Case("llama3_8b_fp8", "8b", "fp8"),
    Case("llama3_8b_int8", "8b", "int8", 280),
    Case("llama3_8b_w8a8", "8b", "w8a8"),
    Case("llama3_8b_int4", "8b", "int4", 380),
)


def decode_times(llm: LLM, prompt: list[int], new: int, runs: int) -> list[list[float]]:
    """When each token of a request came, run by run; one more run warms up."""
    assert llm.engine is not None
    bench_throughput.ready(llm.engine)
    params = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)
    found = []
    for _ in range(runs + 1):
        llm.engine.reset()
        times = [time.perf_counter() for chunk in llm.stream(prompt, params)
                 if chunk.token is not None]
        if len(times) != new:
            raise RuntimeError(f"{len(times)} of {new} tokens came: find the mistake first.")
        found.append(times)
    return found[1:]


def measure(r: results.Recorder, case: Case, model: Model, limits: bench_limits.Limits,
            runs: int, smoke: bool) -> None:
    """Values NAME_rate, _share, _bandwidth, _bytes, _itl and _memory of one case."""
    prompt_len, new = (6, 6) if smoke else (PROMPT, NEW)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    llm = LLM(model, max_num_seqs=1, max_model_len=prompt_len + new + 1,
              **({"quantization": case.quantization} if case.quantization else {}))
    assert llm.engine is not None
    draw = random.Random(0)
    prompt = [draw.randrange(model.config.vocab_size) for _ in range(prompt_len)]
    times = decode_times(llm, prompt, new, runs)
    seconds = [one[-1] - one[0] for one in times]
    # what is read is what the engine runs, which may be a quantized copy
    read = bench_limits.weights_read(llm.engine.model)
    work = bench_limits.decode(llm.engine.model, prompt_len, new, statistics.median(seconds))
    note = f"one request, prompt {prompt_len}, {new} new tokens, decoding only"
    rate = r.value(f"{case.name}_rate", [(new - 1) / s for s in seconds], unit="token/s", note=note)
    share = r.value(f"{case.name}_share", work.bytes_moved / work.seconds
                    / limits.read_bytes_per_s, unit="",
                    note="of the read limit of this run: weights and cache")
    r.value(f"{case.name}_bytes", read, unit="byte", note="weights read for one token")
    r.value(f"{case.name}_weight_bandwidth", read * (new - 1) / work.seconds, unit="byte/s",
            note="weights alone")
    r.value(f"{case.name}_bandwidth", work.bandwidth, unit="byte/s", note="weights and cache")
    r.value(f"{case.name}_limit", work.limit(limits), unit="token/s",
            note="what the limits of this run allow")
    gaps = sorted(b - a for one in times for a, b in itertools.pairwise(one))
    r.value(f"{case.name}_itl_p99", gaps[int(0.99 * (len(gaps) - 1))], unit="s", n=len(gaps),
            note="99th percentile of the gaps between tokens")
    if model.device.type == "cuda":
        r.value(f"{case.name}_memory_peak", torch.cuda.max_memory_allocated(), unit="byte",
                note="largest allocation: weights, cache and all that a step takes")
    bar = "" if case.bar is None or smoke else (
        f"  bar {case.bar:,.0f}: {'reached' if rate >= case.bar else 'MISSED'}")
    print(f"  {case.name:<16} {rate:8,.1f} tokens/s  {work.bandwidth / 1e9:7,.0f} GB/s  "
          f"{100 * share:3.0f} % of the read limit{bar}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_speed",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    if args.device == "cpu" and not args.smoke:
        parser.error("there is no GPU here: --smoke tries the program, `infero bench ladder` "
                     "measures on a CPU.")
    cases = [case for case in CASES if not args.only or case.name in args.only]
    if args.smoke:
        cases = cases[:1] if args.device == "cpu" else cases
    failed: list[str] = []
    with results.record("decode_speed", argv=argv, out=args.out, device=args.device) as r:
        limits = bench_limits.measure(args.device, (torch.bfloat16,), small=args.smoke)
        print(limits.words(), file=sys.stderr)
        r.value("read_bandwidth", limits.read_samples, unit="byte/s", note="measured in this run")
        shape, model = "", None
        for case in cases:
            if case.shape != shape:
                model = None
                released(args.device)
                shape = case.shape
                model = (random_model(SMOKE, dtype=torch.bfloat16, device=args.device)
                         if args.smoke else
                         bench_throughput.random_shape(shape, "bfloat16", args.device))
            assert model is not None
            try:
                measure(r, case, model, limits, 2 if args.smoke else args.runs, args.smoke)
            except Exception:  # one case must not cost the others
                traceback.print_exc()
                failed.append(case.name)
            partial.save(r, argv, args.out, args.device)
            released(args.device)
    if failed:
        print(f"These failed, find out why: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def released(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
