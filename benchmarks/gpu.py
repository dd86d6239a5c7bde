"""Everything that is measured on a GPU, step by step: `make gpu`.

    python -m benchmarks.gpu                      # every step, results into results/
    python -m benchmarks.gpu limits tests         # these steps
    python -m benchmarks.gpu --out DIR --list

Each step is a program of its own in a process of its own with a time limit, so that a step that
crashes the driver's context or hangs takes nothing else with it. A failing step does not stop the
others; the table at the end says which failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Step:
    """One row: `module` is run with --out and what the user asked for; `minutes` is its limit."""

    name: str
    module: str
    chapter: int
    description: str
    minutes: float = 4.0


STEPS: tuple[Step, ...] = (
    Step("tests", "benchmarks.gpu_tests", 0, "tests that need a GPU (tests/gpu)"),
    Step("limits", "benchmarks.limits", 2, "copy, read and matmul limits of the card"),
    Step("hierarchy", "benchmarks.hierarchy", 2, "latency and bandwidth by working set"),
    Step("roofline_sweep", "benchmarks.roofline_sweep", 2, "steps against their prediction"),
    Step("chapter01", "benchmarks.chapter01", 1, "the naive and the cached loop, batched decoding"),
    Step("traces", "benchmarks.traces", 3, "profiler traces that the labs read"),
    Step("pitfalls", "benchmarks.pitfalls", 3, "what each mistake in timing costs"),
    Step("power", "benchmarks.power", 3, "watts and joules a token"),
    Step("latent_attention", "benchmarks.latent_attention", 7, "latent attention in three forms"),
    Step("paging", "benchmarks.paging", 8, "time to first token, cold and with a cached prefix"),
    Step("batching_steps", "benchmarks.batching_steps", 10, "steps over the batch, with a prefill"),
    Step("gpu_experiments", "benchmarks.gpu_experiments", 13,
         "access patterns, occupancy, fusion: PyTorch, Triton, CUDA C++"),
    Step("student", "benchmarks.student", 6, "distils the draft for SmolLM2, and judges it",
         minutes=5),
    Step("attention_steps", "benchmarks.attention_steps", 14,
         "attention from naive to Triton, step by step, and decode over splits", minutes=3),
    Step("matmul_steps", "benchmarks.matmul_steps", 15,
         "the lab's quantized products beside cuBLAS and the engine's", minutes=3),
    Step("attention_kernels", "benchmarks.attention_kernels", 14,
         "FlashAttention and paged decode attention beside PyTorch's", minutes=3),
    Step("matmul_kernels", "benchmarks.matmul_kernels", 15,
         "the products of a decode step in four formats, beside cuBLAS", minutes=3),
    Step("sparsity", "benchmarks.sparsity", 6, "what zeros buy: 2:4 products and an 8B engine",
         minutes=3),
    Step("four_bits", "benchmarks.four_bits", 5, "errors of weights and outputs by method"),
    Step("sensitivity", "benchmarks.sensitivity", 5, "bits a matrix needs; plans under a budget"),
    Step("quality", "benchmarks.quality", 5,
         "what every method of chapters 4 and 5 costs: SmolLM2's quality", minutes=4),
    Step("pruning", "benchmarks.pruning", 6, "what pruning costs: SmolLM2's quality", minutes=4),
    Step("elementwise_kernels", "benchmarks.elementwise_kernels", 13,
         "norms, SiLU·mul, RoPE against a copy; draws without a sort", minutes=2),
    Step("sanitizer", "benchmarks.sanitizer", 13, "every kernel in compute-sanitizer", minutes=3),
    Step("launches", "benchmarks.launches", 16, "what a launch costs, what a step is made of"),
    Step("ablation", "benchmarks.ablation", 16, "the engine with one switch off at a time"),
    Step("labs", "benchmarks.gpu_labs", 13, "labs 13 to 16, every cell, exercises solved",
         minutes=8),
    Step("decode_speed", "benchmarks.decode_speed", 16, "one request: 8B in four formats, 0.6B"),
    Step("throughput", "benchmarks.throughput", 16, "256 requests, 0.6B and 8B, with a profile",
         minutes=6),
    Step("ladder", "benchmarks.ladder", 19, "every rung of the book, 0.6B and 8B"),
    Step("compare", "benchmarks.compare", 16, "beside transformers and vLLM, 0.6B", minutes=6),
    Step("compare_8b", "benchmarks.compare_8b", 16, "beside transformers and vLLM, 8B", minutes=6),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a step: "ok", "failed", "timed out", "nothing to run"."""

    step: Step
    verdict: str
    seconds: float


def command_of(step: Step, out: str | None, smoke: bool) -> list[str]:
    """The command line of a step."""
    options = [*(["--out", out] if out else []), *(["--smoke"] if smoke else [])]
    return [sys.executable, "-m", step.module, *options]


def run(step: Step, out: str | None = None, smoke: bool = False) -> Outcome:
    """Run a step to its end or to its limit; its output goes where ours goes."""
    environ = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONPATH=os.pathsep.join(
        part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part))  # fmt: skip
    begin_s = time.monotonic()
    process = subprocess.Popen(command_of(step, out, smoke), cwd=ROOT, env=environ,
                               stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        code = process.wait(timeout=step.minutes * 60)
        verdict = "ok" if code == 0 else f"failed ({code})"
        if step.name == "tests" and code == 5:  # pytest's status when no test was chosen
            verdict = "nothing to run"
    except subprocess.TimeoutExpired:
        verdict = f"timed out ({step.minutes:g} min)"
    finally:
        stop(process)
    return Outcome(step, verdict, time.monotonic() - begin_s)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a step and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def gpu_problem() -> str:
    """Why nothing can be measured here, in one line, or nothing."""
    code = "import torch; print(torch.cuda.is_available() and torch.cuda.get_device_name(0))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"torch does not import here ({last}): run `make env`."
    if done.stdout.strip() == "False":
        return ("torch sees no CUDA GPU here: check `nvidia-smi`, and that torch is a CUDA build. "
                "On the CPU: python -m benchmarks.limits --device cpu")
    print(f"Measuring on {done.stdout.strip()}.", flush=True)
    return ""


def listing() -> str:
    rows = [f"  {s.name:<20} {s.minutes:>3g} min at most  {s.description}" for s in STEPS]
    return "\n".join(["Steps of `make gpu` (STEP=\"name name\" picks some):", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu",
                                     description="Measure on this machine's GPU.")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="steps to run (default: all)")
    parser.add_argument("--out", help="folder for the files instead of results/")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--list", action="store_true", help="say what the steps are and stop")
    args = parser.parse_args(argv)
    if args.list:
        print(listing())
        return 0
    known = {step.name: step for step in STEPS}
    for name in args.steps:
        if name not in known:
            print(f"There is no step {name!r}. {listing()}", file=sys.stderr)
            return 2
    if problem := gpu_problem():
        print(problem, file=sys.stderr)
        return 1
    chosen = [known[name] for name in args.steps] or list(STEPS)
    out = str(Path(args.out).resolve()) if args.out else None
    outcomes = []
    for number, step in enumerate(chosen, 1):
        print(f"\n[{number}/{len(chosen)}] {step.name}: {step.description}", flush=True)
        outcomes.append(run(step, out, args.smoke))
    return report(outcomes, out)


def report(outcomes: Sequence[Outcome], out: str | None) -> int:
    """Print the table; 1 if a step failed."""
    print("\nstep                  seconds  outcome")
    for o in outcomes:
        print(f"{o.step.name:<20} {o.seconds:>8.0f}  {o.verdict}")
    bad = [o.step.name for o in outcomes if o.verdict not in ("ok", "nothing to run")]
    if bad:
        print(f"\nAgain only these: make gpu STEP=\"{' '.join(bad)}\"", flush=True)
    else:
        print(f"\nThe files are in {out or 'results/'}: look at them, then commit.", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped; what finished is written.", file=sys.stderr)
        sys.exit(130)
