"""Chapter 11's measurement: readers' gaps while a long prompt arrives, on SmolLM2 and this CPU.

    python -m benchmarks.scheduling_cpu [--runs 5] [--smoke] [--out DIR]

Four requests decode; after twelve tokens of the first a prompt of 512 arrives. The same engine runs
it whole and in chunks of several token budgets, in turn, and must give the same tokens each time.
About two minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

import infero
from infero import bench, results
from infero.engine import Engine, EngineConfig
from infero.loading.source import DEFAULT_MODEL
from infero.model import Model
from infero.sampling import SamplingParams

READERS, WARM_TOKENS = 4, 12


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)


def serve(model: Model, budget: int, prompt: list[int], tokens: int
          ) -> tuple[list[float], float, list[list[int]]]:
    """Gaps of all readers after the prompt has come, its TTFT in seconds, and everybody's tokens.

    budget 0: no chunks.
    """
    engine = Engine(model, EngineConfig(
        max_num_seqs=8, max_num_batched_tokens=budget or 1024, chunked_prefill=budget > 0,
        prefix_caching=False, kv_memory_bytes=1 << 28))
    assert model.tokenizer is not None
    start = model.tokenizer.encode("The sea was calm that morning, and")
    for i in range(READERS):
        engine.add_request(f"reader {i}", [*start, 100 + i], greedy(tokens))
    times: dict[str, list[float]] = {}
    made: dict[str, list[int]] = {}
    came_s = float("inf")
    while engine.has_unfinished():
        for chunk in engine.step():
            assert chunk.token is not None
            times.setdefault(chunk.id, []).append(time.perf_counter())
            made.setdefault(chunk.id, []).append(chunk.token)
        if came_s == float("inf") and len(times["reader 0"]) >= WARM_TOKENS:
            came_s = time.perf_counter()
            engine.add_request("prompt", prompt, greedy(4))
    gaps = [gap for i in range(READERS) for gap, at in zip(
        bench.inter_token_s(times[f"reader {i}"]), times[f"reader {i}"][1:], strict=True)
        if at > came_s]
    return gaps, times["prompt"][0] - came_s, [made[id] for id in sorted(made)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each budget")
    parser.add_argument("--smoke", action="store_true", help="once, to see that it works")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    budgets = (0, 64) if args.smoke else (0, 256, 128, 64, 32, 16)
    runs, length, tokens = (1, 64, 18) if args.smoke else (args.runs, 512, 48)
    model = infero.load(DEFAULT_MODEL, device="cpu")
    exact = infero.load(DEFAULT_MODEL, device="cpu", dtype="fp32")
    assert model.tokenizer is not None
    text = "The harbour was quiet and the boats lay still beside the long stone pier. " * 60
    prompt = model.tokenizer.encode(text)[:length]

    want = serve(exact, 0, prompt, WARM_TOKENS + 4)[2]
    for budget in budgets[1:]:
        if serve(exact, budget, prompt, WARM_TOKENS + 4)[2] != want:
            raise RuntimeError(f"In float32 a budget of {budget} gives other tokens than whole "
                               "prompts: find the mistake before timing anything.")
    with results.record("scheduling_cpu", argv=argv, out=args.out, device="cpu") as r:
        longest: dict[int, list[float]] = {b: [] for b in budgets}
        middle: dict[int, list[float]] = {b: [] for b in budgets}
        ttft: dict[int, list[float]] = {b: [] for b in budgets}
        serve(model, 64, prompt, tokens)
        for i in range(runs):
            for budget in budgets:
                gaps, first_s, _ = serve(model, budget, prompt, tokens)
                longest[budget].append(max(gaps))
                middle[budget].append(statistics.median(gaps))
                ttft[budget].append(first_s)
            print(f"run {i + 1} of {runs}", file=sys.stderr)
        for budget in budgets:
            name = budget or "whole"
            r.value(f"longest_gap.{name}", longest[budget], unit="s",
                    note=f"of {READERS} readers, while a prompt of {length} tokens arrives")
            r.value(f"median_gap.{name}", middle[budget], unit="s", note="of the same gaps")
            r.value(f"ttft.{name}", ttft[budget], unit="s", note=f"of the prompt of {length}")
            print(f"{name!s:>6}: longest gap {1e3 * statistics.median(longest[budget]):6.0f} ms, "
                  f"TTFT {1e3 * statistics.median(ttft[budget]):6.0f} ms", file=sys.stderr)
        r.table("gaps", columns=[("budget", ""), ("longest", "s"), ("median", "s"), ("ttft", "s")],
                rows=[[b, statistics.median(longest[b]), statistics.median(middle[b]),
                       statistics.median(ttft[b])] for b in budgets])


if __name__ == "__main__":
    main()
