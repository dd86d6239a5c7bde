"""The 256-request workload and one request alone, on random bf16 weights of real shapes.

    python -m benchmarks.throughput [--shape 0.6b 8b] [--seconds 100] [--device cuda|cpu] [--smoke]
                                    [--out DIR]

The workload is nano-vllm's own (256 requests, prompts and outputs uniform in 100 to 1,024 tokens,
temperature 0.6, no end of sequence), served by the engine as it is, with a KV cache of what the
memory budget leaves. A run is stopped after --seconds; its rate is then that of what was done, and
the note says so.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.chapter01 import SMOKE, read_limit
from infero import bench_throughput as b
from infero import results
from infero.bench_throughput import Job, Run
from infero.engine import Engine, EngineConfig
from infero.model import Model, random_model
from infero.sampling import SamplingParams

NAMES = {"0.6b": "qwen3_06b", "8b": "llama3_8b"}
PROMPT, NEW = 128, 256  # of the request alone
POINTS = 400  # of the run's progress that are written down at most


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


def alone(model: Model, prompt: int, new: int, runs: int) -> list[float]:
    """Decode rates of one request, from its first token to its last; the first run warms up."""
    engine = Engine(model, EngineConfig(max_num_seqs=1, max_model_len=prompt + new))
    params = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)
    ids = torch.randint(0, model.config.vocab_size, (prompt,),
                        generator=torch.Generator().manual_seed(0)).tolist()
    rates = []
    for run in range(runs + 1):
        engine.reset()
        engine.add_request(str(run), ids, params)
        times = []
        while engine.has_unfinished():
            chunks = engine.step()
            times += [time.perf_counter() for chunk in chunks if chunk.token is not None]
        rates.append((len(times) - 1) / (times[-1] - times[0]))
    return rates[1:]


def workload(r: results.Recorder, name: str, model: Model, job: Job, slots: int, budget: int,
             limit_s: float) -> None:
    """Serve the job continuously; rate, passes, and where the time of a step goes."""
    engine = Engine(model, b.engine_config(job, slots, budget))
    short = replace(job, prompts=[p[:64] for p in job.prompts[:8]], lengths=[4] * 8)
    b.warm_up(engine, replace(short, lengths=short.lengths[: len(short.prompts)]))
    progress: list[list[float]] = []
    start_s = time.perf_counter()

    def seen(_: int, tokens: int) -> None:
        progress.append([time.perf_counter() - start_s, tokens])

    run: Run = b.continuous(engine, job, limit_s=limit_s, seen=seen)
    if run.stopped == "Ctrl-C":
        raise KeyboardInterrupt
    if not run.stopped and run.tokens != job.output_tokens:
        raise RuntimeError(f"{run.tokens} of {job.output_tokens} tokens were made: find the "
                           "mistake first.")
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
    r.value(f"{name}_pass", run.step_s / run.steps, unit="s", n=run.steps, note="mean of a step")
    r.value(f"{name}_forward_share", run.forward_s / run.step_s, unit="",
            note="of the steps' time; the forward pass with sampling")
    r.value(f"{name}_preemptions", run.preemptions, unit="")
    r.value(f"{name}_kv_blocks", engine.num_blocks, unit="")
    r.value(f"{name}_kv_peak", run.peak_kv, unit="", note="largest share of the pool in use")
    every = max(1, len(progress) // POINTS)
    r.table(f"{name}_progress", [("time", "s"), ("tokens", "token")], progress[::every])
    print(f"{name}: {run.tokens_per_s:,.0f} output tokens/s ({note}); forward "
          f"{100 * run.forward_s / run.step_s:.0f} %, {run.tokens_per_step:.0f} tokens a pass",
          file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--shape", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--seconds", type=float, default=100,
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
    with results.record("throughput", argv=argv, out=args.out, device=args.device) as r:
        bandwidth = r.value("read_bandwidth", read_limit(device, smoke), unit="byte/s")
        for shape in args.shape:
            name = NAMES[shape]
            model = (random_model(SMOKE, dtype=torch.bfloat16, device=device) if smoke
                     else b.random_shape(shape, "bfloat16", args.device))
            job = job_of(model, smoke)
            rates = alone(model, *((8, 4, 2) if smoke else (PROMPT, NEW, 3)))
            r.value(f"{name}_alone_rate", rates, unit="token/s",
                    note=f"one request, prompt {PROMPT}, {NEW} new tokens, decode only")
            read = model.parameter_bytes()
            if model.head is not model.embedding:
                read -= model.embedding.numel() * model.embedding.element_size()
            share = statistics.median(rates) * read / bandwidth
            r.value(f"{name}_alone_share", share, unit="", note="of the read limit, weights alone")
            print(f"{name}: alone {statistics.median(rates):,.1f} tokens/s, {100 * share:.0f} % of "
                  "the read limit", file=sys.stderr)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            workload(r, name, model, job, 4 if smoke else args.slots,
                     64 if smoke else args.budget, args.seconds)
            if device.type == "cuda":
                r.value(f"{name}_memory_peak", torch.cuda.max_memory_allocated(), unit="byte")
            del model
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
