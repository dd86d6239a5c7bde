"""Continuous against static batching of SmolLM2 on this CPU, beside transformers' static batches.

    python -m benchmarks.throughput_cpu [--requests 128] [--slots 16] [--runs 3] [--smoke]
                                        [--lengths L] [--prompts L] [--dtype D] [--out DIR]

One job is served in four ways on the same weights, all in one run and in turns: by the engine as
it is; by the same engine in static groups, whose finished requests keep their rows busy until the
longest ends; in static groups that shrink; and by transformers in left-padded static batches.
The ideal gain is computed from the very lengths of the job. Then the share of a step that is not
the forward pass is measured at 32 running requests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import infero
from infero import bench_throughput as b
from infero import model as model_module
from infero import peers, results
from infero.bench_throughput import Job, Run
from infero.engine import Engine, EngineConfig
from infero.loading.source import DEFAULT_MODEL
from infero.model import Model

LENGTHS, PROMPTS = "geometric:32:256", "uniform:8:24"
BAR_IDEAL, BAR_TRANSFORMERS, BAR_OVERHEAD = 0.8, 1.5, 0.05
NAMES = {"continuous": "continuous", "static": "static", "static, shrinking": "shrinking",
         "transformers": "transformers"}


def ways_of(model: Model, job: Job, slots: int) -> list[Callable[[], Run]]:
    """The four ways to serve the job, warmed up."""
    engine = Engine(model, b.engine_config(job, slots))
    peer = peers.transformers_model(model)
    b.warm_up(engine, job)
    short = Job(job.prompts[:slots], [4] * min(slots, len(job.prompts)))
    peers.transformers_static(peer, short, slots)
    return [lambda: b.continuous(engine, job), lambda: b.static(engine, job),
            lambda: b.static(engine, job, drop_finished=True),
            lambda: peers.transformers_static(peer, job, slots)]


def in_turns(ways: Sequence[Callable[[], Run]], runs: int) -> dict[str, list[Run]]:
    """Every way `runs` times; the order changes with the turn, so that none has the best place."""
    found: dict[str, list[Run]] = {}
    for turn in range(runs):
        for k in range(len(ways)):
            run = ways[(k + turn) % len(ways)]()
            if run.stopped:
                raise KeyboardInterrupt
            found.setdefault(NAMES[run.name], []).append(run)
            print(f"{turn + 1}/{runs} {run.name:>18}: {run.tokens_per_s:7.1f} tokens/s, "
                  f"{run.steps} passes, {run.duration_s:.1f} s", file=sys.stderr)
    return found


def overhead_shares(model: Model, requests: int, steps: int, seed: int = 1
                    ) -> tuple[list[float], list[float]]:
    """Shares of each step, with `requests` decoding together: what is neither the forward pass nor
    the draw of tokens, and all that is not the forward pass."""
    job = b.make_job(model.config.vocab_size, requests, f"fixed:{steps + 20}", PROMPTS, seed)
    engine = Engine(model, EngineConfig(max_num_seqs=requests, max_model_len=job.longest,
                                        max_num_batched_tokens=2048))
    for i in range(requests):
        engine.add_request(str(i), job.prompts[i], b.params_of(job, i))
    while engine.stats.tokens_sampled < 4 * requests:  # all have begun, nothing is new any more
        engine.step()
    inside_s, forward = 0.0, model_module.forward

    def timed(*args: Any) -> Any:
        nonlocal inside_s
        start_s = time.perf_counter()
        logits = forward(*args)
        inside_s = time.perf_counter() - start_s
        return logits

    scheduling, outside = [], []
    model_module.forward = timed
    try:
        for _ in range(steps):
            before = (engine.stats.step_s, engine.stats.forward_s)
            engine.step()
            step_s = engine.stats.step_s - before[0]
            scheduling.append(1 - (engine.stats.forward_s - before[1]) / step_s)
            outside.append(1 - inside_s / step_s)
    finally:
        model_module.forward = forward
    return scheduling, outside


def record(r: results.Recorder, job: Job, slots: int, found: dict[str, list[Run]]) -> None:
    """Rates, gains turn by turn, passes, and the lengths themselves."""
    ideal = b.ideal_of(job, slots)
    r.value("requests", len(job.prompts), unit="")
    r.value("slots", slots, unit="")
    r.value("prompt_tokens", job.prompt_tokens, unit="token", note="of all requests")
    r.value("output_tokens", job.output_tokens, unit="token", note="of all requests")
    r.value("output_mean", job.output_tokens / len(job.lengths), unit="token")
    r.value("output_longest", max(job.lengths), unit="token")
    r.value("ideal_static_passes", ideal.static_steps, unit="")
    r.value("ideal_continuous_passes", ideal.continuous_steps, unit="")
    r.value("ideal_gain", ideal.gain, unit="", note="passes of static over continuous batching")
    for name, runs in found.items():
        r.value(f"{name}_rate", [one.tokens_per_s for one in runs], unit="token/s",
                note="output tokens that were asked for")
        r.value(f"{name}_requests", [one.requests_per_s for one in runs], unit="request/s")
        r.value(f"{name}_time", [one.duration_s for one in runs], unit="s")
        r.value(f"{name}_passes", runs[0].steps, unit="")
        r.value(f"{name}_utilisation", runs[0].utilisation, unit="",
                note="wanted tokens over slots times passes")
        r.value(f"{name}_tokens_per_pass", runs[0].tokens_per_step, unit="token")
    ours = found["continuous"]
    for name in ("static", "shrinking", "transformers"):
        gains = [a.tokens_per_s / c.tokens_per_s for a, c in zip(ours, found[name], strict=True)]
        r.value(f"gain_over_{name}", gains, unit="", note="ratio of the rates, turn by turn")
    r.value("ideal_share", [b.share_reached(ideal, a, c)
                            for a, c in zip(ours, found["static"], strict=True)], unit="",
            note="gain over static batching, over the ideal gain")
    r.value("overhead_continuous", [one.overhead for one in ours], unit="",
            note="share of the steps' time that is not the forward pass")
    r.value("peak_kv", ours[0].peak_kv, unit="", note="largest share of the pool in use")
    r.value("preemptions", ours[0].preemptions, unit="")
    r.table("lengths", [("prompt", "token"), ("output", "token")],
            [[len(p), n] for p, n in zip(job.prompts, job.lengths, strict=True)])
    r.table("tokens_of_pass", [("pass", ""), ("tokens", "token")],
            [[i, n] for i, n in enumerate(ours[0].token_steps)])


def verdicts(r: results.Recorder) -> list[str]:
    """The bars, each with what was measured."""
    bars = [("share of the ideal gain over static batching", "ideal_share", BAR_IDEAL, True),
            ("output tokens/s over transformers'", "gain_over_transformers", BAR_TRANSFORMERS,
             True),
            ("share of a step that is not the forward pass at 32 requests", "overhead_32",
             BAR_OVERHEAD, False)]
    lines = []
    for words, key, bar, above in bars:
        value = r.values[key]["value"]
        good = value >= bar if above else value <= bar
        lines.append(f"{'reached' if good else 'MISSED '}  {words}: {value:.3g} "
                     f"({'≥' if above else '≤'} {bar:g})")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput_cpu",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--lengths", default=LENGTHS, help="output tokens, as in infero bench")
    parser.add_argument("--prompts", default=PROMPTS, help="prompt tokens, likewise")
    parser.add_argument("--runs", type=int, default=3, help="turns of all four ways")
    parser.add_argument("--dtype", default="auto", help="auto picks the fastest of this CPU")
    parser.add_argument("--smoke", action="store_true", help="a few short requests")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    requests, slots, runs = (6, 3, 2) if args.smoke else (args.requests, args.slots, args.runs)
    lengths = "geometric:3:6" if args.smoke else args.lengths

    with results.record("throughput_cpu", argv=argv, out=args.out, device="cpu") as r:
        model = infero.load(DEFAULT_MODEL, dtype=args.dtype, device="cpu")
        name = str(model.dtype).removeprefix("torch.")
        job = b.make_job(model.config.vocab_size, requests, lengths, args.prompts, seed=0)
        found = in_turns(ways_of(model, job, slots), runs)
        for group in found.values():
            if any(one.tokens != job.output_tokens for one in group):
                raise RuntimeError(f"{group[0].name} made {group[0].tokens} of "
                                   f"{job.output_tokens} tokens: find the mistake first.")
        record(r, job, slots, found)
        r.value("bits", 8 * model.embedding.element_size(), unit="bit", note=name)
        scheduling, outside = overhead_shares(model, *((4, 3) if args.smoke else (32, 40)))
        r.value("overhead_32", outside, unit="",
                note="share of a step that is not the forward pass, 32 running requests")
        r.value("scheduling_32", scheduling, unit="", note="likewise, without the draw of tokens "
                "and the packing of the batch")
        print("\n".join(verdicts(r)), file=sys.stderr)


if __name__ == "__main__":
    main()
