"""Whether any kernel reads or writes where it must not: all of them under compute-sanitizer.

    python -m benchmarks.sanitizer [--smoke] [--out DIR]

A wrong mask often goes unnoticed, because what lies beyond a tensor is usually some other tensor.
`compute-sanitizer --tool memcheck` sees every access of a kernel. So the program calls each of the
engine's kernels once or twice at small awkward sizes, in a process of its own under that tool, with
PyTorch's memory pool off: then every tensor is an allocation, and an access past its end an error.
It records how many calls were made and how many errors seen, and fails if there is one. --smoke
makes the calls alone, interpreted on a CPU.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

if "--smoke" in sys.argv:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
from torch import Tensor

from infero import results
from infero.kernels import (
    activations,
    decode,
    embeddings,
    flash,
    formats,
    norms,
    products,
    rotary,
    sampler,
)
from infero.kernels import using as kernels_using
from infero.kernels.language import INTERPRETED
from infero.sampling import SamplingRows

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = torch.float16


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(DTYPE)


def calls() -> dict[str, Callable[[], object]]:
    """One call of every kernel by name: rows, heads and lengths that fill no block."""
    x, w = rand(3, 200), rand(200)
    inv_freq = torch.rand(20, device=DEVICE)
    k, v = rand(64, 2, 40), rand(64, 2, 40)  # 4 blocks of 16 slots: the last one is read to its end
    tables, starts = ints(3, 0, 1, 2).view(2, 2), ints(0, 5, 6)
    count, vocab = 3, 1003
    rows = SamplingRows(
        torch.tensor([1.0, 0.0, 0.7], device=DEVICE), torch.tensor([5, 0, 0], device=DEVICE),
        torch.tensor([1.0, 1.0, 0.8], device=DEVICE), torch.zeros(count, device=DEVICE),
        torch.arange(count, device=DEVICE), torch.arange(count, device=DEVICE))
    logits = rand(count, vocab)
    weight = rand(72, 256)
    found: dict[str, Callable[[], object]] = {
        "rms_norm": lambda: norms.rms_norm(x, w, 1e-5),
        "add_rms_norm": lambda: norms.add_rms_norm(x, x.clone(), w, 1e-5),
        "silu_mul": lambda: activations.silu_mul(x),
        "gather": lambda: embeddings.gather(ints(2, 0), x, ints(-1, 1),
                                            torch.tensor([0, 1], device=DEVICE)),
        "rotate": lambda: rotary.rotate(rand(3, 5, 40), ints(0, 1, 2), inv_freq),
        "rotate_and_write": lambda: rotary.rotate_and_write(
            rand(3, 7 * 40), ints(5, 6, 7), ints(63, -1, 0), inv_freq, k, v, 3, 2, rand(40),
            rand(40)),
        "flash": lambda: flash.attention(rand(6, 6, 40), k, v, starts, ints(32, 31), tables, 16,
                                         0.2, longest_query=5),
        "flash, window": lambda: flash.attention(rand(6, 6, 40), k, v, starts, ints(32, 31), tables,
                                                 16, 0.2, 7, longest_query=5),
        "flash, dense": lambda: flash.dense(rand(6, 6, 40), k[:41], v[:41], starts, ints(0, 30, 41),
                                            0.2, longest_query=5),
        "decode": lambda: decode.attention(rand(2, 6, 40), k, v, tables, ints(32, 0), 16, 0.2,
                                           splits=2),
        "decode, deterministic": lambda: decode.attention(
            rand(2, 6, 40), k, v, tables, ints(32, 1), 16, 0.2, splits=2, deterministic=True),
    }
    for variant in sampler.VARIANTS:
        found[f"sample, {variant}"] = lambda kind=variant: sampler.sample(logits, rows, kind)
    for tokens in (1, 5):
        for kind in (None, "int8", "int4"):
            some = weight if kind is None else formats.quantize_rows(weight, kind, 128)
            found[f"linear, {kind or 'dense'}, {tokens}"] = (
                lambda m=some, n=tokens: products.linear(rand(n, 256), m, norm=rand(256),
                                                         swiglu=True))
    return found


def run_all() -> int:
    """Make every call; their number."""
    torch.manual_seed(0)
    with kernels_using(kernels="triton"), torch.inference_mode():
        for name, call in calls().items():
            start = time.perf_counter()
            call()
            if not INTERPRETED:
                torch.cuda.synchronize()
            print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    return len(calls())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanitizer", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="the calls alone, on a CPU")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    if args.inside:
        run_all()
        return
    with results.record("sanitizer", argv=argv, out=args.out,
                        device="cpu" if INTERPRETED else "cuda") as r:
        if args.smoke:
            r.value("calls", run_all(), unit="")
            return
        tool = shutil.which("compute-sanitizer")
        if tool is None:
            raise SystemExit("compute-sanitizer is not installed: it comes with the CUDA toolkit.")
        run_all()  # compiles: the tool then meets cached kernels
        done = subprocess.run(
            [tool, "--tool", "memcheck", sys.executable, "-m", "benchmarks.sanitizer", "--inside"],
            capture_output=True, text=True, check=False,
            env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
        said = done.stdout + done.stderr
        summary = re.search(r"ERROR SUMMARY: (\d+) error", said)
        if summary is None or done.returncode:
            raise RuntimeError(f"compute-sanitizer ended with {done.returncode}:\n{said[-3000:]}")
        r.value("calls", len(calls()), unit="", note="of kernels, at sizes that fill no block")
        r.value("errors", int(summary[1]), unit="", note="of memory accesses, by memcheck")
        if int(summary[1]):
            raise RuntimeError(said[-6000:])


if __name__ == "__main__":
    main()
