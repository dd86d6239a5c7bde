"""The lab's quantized products beside cuBLAS and the engine's, over the batch; experts grouped.

    python -m benchmarks.matmul_steps [--smoke] [--out DIR]

The weight has the shape of Llama-3-8B's gate and up and random values. Several copies are used in
turn, so that every launch reads its weight from memory and not from L2. Launches are timed inside a
CUDA graph. Kernels are compiled by several processes first: a variant takes seconds. Chapter 15 and
lab 15 quote and draw the results.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infero import grouped, results
from infero.kernels import formats, products
from infero.kernels.steps import matmul as steps

SHAPE = (28_672, 4096)
TOKENS = (1, 16, 64, 128)
GROUP = 128
KINDS = {"bf16": 16.0, "v1": 4.5, "v2": 4.5, "v3": 4.5, "v4": 4.5, "int8": 8.0,
         "engine_int4": 4.125, "engine_int8": 8.0}  # bits a weight; the lab's tables are float32
EXPERTS = (64, 6, 2816, 2048)  # experts, choices a token, out, in
FEW = {"v1": 16, "int8": 16}  # kernels that read the weight for every token


@dataclass
class Weights:
    """One weight in every form, dense last: [out, in]."""

    dense: Tensor
    int4: formats.Int4Weight
    int8: formats.Int8Weight
    lab: steps.Int4

    @staticmethod
    def random(out: int, inner: int, dtype: torch.dtype, device: str) -> Weights:
        dense = (torch.randn(out, inner, device=device) / inner**0.5).to(dtype)
        int4 = formats.quantize_rows(dense, "int4", GROUP)
        int8 = formats.quantize_rows(dense, "int8")
        lab = steps.of(int4)
        assert isinstance(int4, formats.Int4Weight)
        assert isinstance(int8, formats.Int8Weight)
        assert lab is not None
        return Weights(dense, int4, int8, lab)


def product(kind: str, x: Tensor, w: Weights) -> Tensor:
    """x times the weight by one of the programs compared."""
    if kind == "bf16":
        return F.linear(x, w.dense)
    if kind == "int8":
        return steps.int8_matvec(x, w.int8.values, w.int8.scales)
    if kind.startswith("engine"):
        return products.linear(x, w.int8 if kind == "engine_int8" else w.int4)
    version = {"v1": steps.int4_matvec, "v2": steps.int4_matmul, "v3": steps.int4_once,
               "v4": steps.int4_split}[kind]
    return version(x, w.lab.words, w.lab.scales, w.lab.zeros)


def of_kind(kind: str, x: Tensor, copies: Sequence[Weights]) -> Callable[[int], Tensor]:
    """The product with the i-th copy of the weight."""
    return lambda i: product(kind, x, copies[i])


def seconds(run: Callable[[int], object], copies: int, device: str, launches: int = 8,
            samples: int = 5) -> list[float]:
    """Seconds of `run(copy)`, as `launches` of them in one CUDA graph over the copies in turn."""
    def all_of_them() -> None:
        for i in range(launches):
            run(i % copies)

    run(0)
    if device != "cuda":
        start = time.perf_counter()
        all_of_them()
        return [(time.perf_counter() - start) / launches]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        all_of_them()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        all_of_them()
    return [t / launches for t in events(graph.replay, samples)]


def events(run: Callable[[], object], samples: int) -> list[float]:
    """Seconds of each call by CUDA events, after two that warm up."""
    found = []
    for i in range(samples + 2):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        if i >= 2:
            found.append(start.elapsed_time(end) / 1e3)
    return found


def check(w: Weights, x: Tensor) -> None:
    """Every program against a product in float32 with the weight it stands for."""
    for kind in KINDS:
        dense = w.dense if kind == "bf16" else (
            w.int8.dequantize() if "int8" in kind else w.int4.dequantize())
        want = x.float() @ dense.float().T
        error = float((product(kind, x, w).float() - want).abs().max() / want.abs().max())
        if error > 2e-2:
            raise RuntimeError(f"{kind} at {tuple(w.dense.shape)} is wrong by {error:.1%}")


def sweep(r: results.Recorder, w: list[Weights], device: str, tokens: Sequence[int]) -> None:
    """Every program over the number of tokens, on the largest shape."""
    out, inner = w[0].dense.shape
    dtype = w[0].dense.dtype
    times: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    for n in tokens:
        x = torch.randn(n, inner, device=device, dtype=dtype)
        for kind, bits in KINDS.items():
            if n > FEW.get(kind, n):
                continue
            found = seconds(of_kind(kind, x, w), len(w), device)
            times[kind][n] = statistics.median(found)
            if n in (1, 16, 64):
                r.value(f"{kind}_m{n}", found, unit="s", note=f"{out} x {inner}, {n} tokens")
            if n == 1:
                r.value(f"{kind}_rate", [out * inner * bits / 8 / t for t in found], unit="byte/s",
                        note=f"weight bytes, {out} x {inner}, one token")
    base = times["bf16"]
    for kind in ("int8", "v1", "v2", "v3", "v4", "engine_int4", "engine_int8"):
        for n in (1, 16, 64):
            if n in times[kind]:
                r.value(f"{kind}_gain_m{n}", base[n] / times[kind][n], unit="")
    for kind in ("v2", "v3", "v4", "engine_int4"):
        slower = [n for n in tokens if times[kind][n] >= base[n]]
        r.value(f"{kind}_crossover", min(slower, default=2 * max(tokens)), unit="token",
                note="fewest measured tokens at which bf16 is as fast; twice the sweep: none")
    columns = [kind for kind in KINDS if kind not in FEW]
    r.table("sweep", [("tokens", "token"), *((kind, "s") for kind in columns)],
            [[n, *(times[kind][n] for kind in columns)] for n in tokens])


def prefill(r: results.Recorder, w: Weights, device: str, tokens: int) -> None:
    """Many tokens: the fused kernel, and the weight unpacked first for cuBLAS."""
    x = torch.randn(tokens, w.dense.shape[1], device=device, dtype=w.dense.dtype)
    ways: dict[str, Callable[[int], object]] = {
        "prefill_bf16": lambda i: F.linear(x, w.dense),
        "prefill_v4": lambda i: product("v4", x, w),
        "prefill_engine": lambda i: products.linear(x, w.int4),
        "prefill_unpacking": lambda i: steps.dequantize(w.lab, x.dtype),
    }
    for name, run in ways.items():
        r.value(name, seconds(run, 1, device, launches=2), unit="s", note=f"{tokens} tokens")
    r.value("prefill_tokens", tokens, unit="token")


def experts(r: results.Recorder, sizes: tuple[int, int, int, int], tokens: Sequence[int],
            device: str, dtype: torch.dtype) -> None:
    """Grouped products of many small experts against a loop over them."""
    count, choices, out, inner = sizes
    weights = torch.randn(count, out, inner, device=device, dtype=dtype) / inner**0.5
    rows = []

    def timed(run: Callable[[], object]) -> float:
        if device == "cuda":
            return statistics.median(events(run, 5))
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    for n in tokens:
        x = torch.randn(n, inner, device=device, dtype=dtype)
        picks = torch.rand(n, count, device=device).topk(choices).indices
        routing = grouped.route(picks, count)
        want = grouped.grouped_reference(x, weights, routing).float()
        got = grouped.grouped_matmul(x, weights, routing).float()
        if float((got - want).abs().max()) > 2e-2 * float(want.abs().max()):
            raise RuntimeError(f"the grouped product of {n} tokens is wrong")
        loop = timed(lambda: grouped.grouped_reference(x, weights, grouped.route(picks, count)))  # noqa: B023
        one = timed(lambda: grouped.grouped_matmul(x, weights, grouped.route(picks, count)))  # noqa: B023
        kernel = statistics.median(seconds(
            lambda i: grouped.grouped_matmul(x, weights, grouped.route(picks, count)), 1, device,  # noqa: B023
            launches=2))
        rows.append([n, loop, one, kernel])
        if n in (16, 256):
            r.value(f"experts_loop_m{n}", loop, unit="s")
            r.value(f"experts_grouped_m{n}", kernel, unit="s", note="in a CUDA graph")
            r.value(f"experts_gain_m{n}", loop / kernel, unit="")
    r.table("experts", [("tokens", "token"), ("loop", "s"), ("grouped", "s"), ("graph", "s")], rows)
    r.value("experts_count", count, unit="")
    r.value("experts_choices", choices, unit="")


def compile_part(part: Sequence[tuple[str, int]]) -> None:
    """Call each kind with so many tokens once, so that its kernel is in Triton's cache on disk."""
    with torch.inference_mode():
        for kind, n in part:
            if kind == "experts":
                routing = grouped.route(torch.zeros(n, 1, dtype=torch.long, device="cuda"), 1)
                x = torch.zeros(n, EXPERTS[3], device="cuda", dtype=torch.bfloat16)
                grouped.grouped_matmul(x, x.new_zeros(1, EXPERTS[2], EXPERTS[3]), routing)
                continue
            out, inner = SHAPE if kind.startswith("engine") else (128, 512)
            w = Weights.random(out, inner, torch.bfloat16, "cuda")
            product(kind, torch.zeros(n, inner, device="cuda", dtype=torch.bfloat16), w)
        torch.cuda.synchronize()


def compile_all(processes: int = 15) -> None:
    """Every variant that the sweep will launch, by several processes."""
    work = [("experts", n) for n in (1, 16, 32, 64)]
    work += [(kind, 1) for kind in ("v1", "int8")]
    work += [(kind, n) for kind in ("engine_int4", "engine_int8") for n in (1, 3, 16, 64, 128)]
    work += [(kind, n) for kind in ("v2", "v3", "v4") for n in (1, 3, 16, 32, 64)]
    with multiprocessing.get_context("spawn").Pool(min(processes, os.cpu_count() or 1)) as pool:
        pool.map(compile_part, [work[i::processes] for i in range(processes)], chunksize=1)


def limits(r: results.Recorder) -> None:
    """What the card can do, in the same run."""
    big = torch.ones(1 << 30, dtype=torch.bfloat16, device="cuda").view(-1, 1 << 14)
    r.value("read_bandwidth", [big.nbytes / t for t in events(lambda: big.sum(1), 5)],
            unit="byte/s")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    r.value("matmul_bf16", [2 * 8192**3 / t for t in events(lambda: a @ a, 5)], unit="flop/s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matmul_steps", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    given = list(sys.argv[1:] if argv is None else argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.smoke:
        parser.error("this measures a GPU, and there is none; --smoke tries the program out")
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tiny = args.smoke
    with torch.inference_mode(), results.record("matmul_steps", argv=given, out=args.out,
                                                device=device) as r:
        if device == "cuda":
            compile_all()
            limits(r)
        out, inner = (48, 256) if tiny else SHAPE
        w = [Weights.random(out, inner, dtype, device) for _ in range(1 if tiny else 3)]
        check(w[0], torch.randn(3, inner, device=device, dtype=dtype))
        sweep(r, w, device, (1, 16) if tiny else TOKENS)
        prefill(r, w[0], device, 64 if tiny else 2048)
        del w
        experts(r, (4, 2, 32, 64) if tiny else EXPERTS,
                (1, 16) if tiny else (1, 4, 16, 64, 256, 1024), device, dtype)
        r.value("predicted_crossover", steps.crossover_batch(4.5, steps.INSTRUCTIONS, steps.H100),
                unit="token", note="three limits, instructions as counted, an H100's datasheet")


if __name__ == "__main__":
    main(sys.argv[1:])
