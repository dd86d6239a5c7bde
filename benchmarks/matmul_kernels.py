"""Products with few tokens: the engine's kernels on the 8B shapes, beside cuBLAS and tinygemm.

    python -m benchmarks.matmul_kernels [--smoke] [--out DIR]

Every product is timed as the layer calls it, with its norm (up to 16 tokens), SwiGLU or residual in
the same launch; cuBLAS and PyTorch's int4 kernel (tinygemm, group 128) compute the bare product.
Launches stand one after another in a CUDA graph, over copies of the weight that exceed the L2
cache, so that every byte comes from memory. Then the four products of whole layers in a row, with
and without programmatic dependent launch, and one product with single ideas of its kernel taken
out again. Each product is compared with PyTorch's. Kernels are compiled by several processes
first: a variant takes seconds. Chapter 15 quotes the results. With --smoke tiny sizes on a CPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

if "--smoke" in sys.argv:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.limits import GiB, read_samples, samples_s
from infero import results
from infero.kernels import formats, language, matmul, matmul_convert, products
from infero.kernels.language import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = torch.float16 if INTERPRETED else torch.bfloat16  # the interpreter has no bf16 products
ROTATED = 300 << 20  # bytes of weights that a timed graph goes through at least


@dataclass(frozen=True)
class Shape:
    """A product of a decoder layer and what stands around it."""

    name: str
    out: int
    inputs: int
    norm: bool = False
    swiglu: bool = False
    residual: bool = False


LLAMA = (Shape("qkv", 6144, 4096, norm=True), Shape("o", 4096, 4096, residual=True),
         Shape("gate_up", 28672, 4096, norm=True, swiglu=True),
         Shape("down", 4096, 14336, residual=True))
HEAD = Shape("head", 128256, 4096, norm=True)
QWEN = (Shape("qkv_06b", 4096, 1024, norm=True), Shape("o_06b", 1024, 2048, residual=True),
        Shape("gate_up_06b", 6144, 1024, norm=True, swiglu=True),
        Shape("down_06b", 1024, 3072, residual=True))
TINY = (Shape("qkv", 48, 128, norm=True), Shape("gate_up", 64, 128, norm=True, swiglu=True),
        Shape("down", 32, 256, residual=True))
TOKENS = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Case:
    """One format at one shape with so many tokens."""

    shape: Shape
    kind: str
    tokens: int


def cases() -> list[Case]:
    """What is timed: everything with one token, the layer's four products with more."""
    if INTERPRETED:
        return [Case(s, kind, n) for s in TINY for kind in ("dense", "int8", "int4")
                for n in (1, 3, 20)]
    found = [Case(s, kind, 1) for s in (*LLAMA, HEAD) for kind in ("dense", "int8", "int4")]
    found += [Case(s, "dense", 1) for s in QWEN]
    found += [Case(s, "fp8", n) for s in LLAMA[2:] for n in (1, 16)]
    found += [Case(s, kind, n) for kind in ("int8", "int4") for s in LLAMA for n in TOKENS]
    return found + [Case(s, "dense", n) for s in LLAMA for n in TOKENS if n <= products.FUSED]


def made(kind: str, n: int, k: int) -> formats.Weight:
    """A random weight, without the time that rounding one takes."""
    if kind == "dense":
        return torch.randn(n, k, device=DEVICE, dtype=DTYPE) * k**-0.5
    row_scales = torch.full((n,), k**-0.5 / 64, device=DEVICE)
    if kind == "int8":
        values = torch.randint(-127, 128, (n, k), device=DEVICE, dtype=torch.int8)
        return formats.Int8Weight(values, row_scales, DTYPE)
    if kind == "fp8":
        values = torch.randn(n, k, device=DEVICE, dtype=DTYPE).to(torch.float8_e4m3fn)
        return formats.Fp8Weight(values, row_scales * 64, DTYPE)
    words = torch.randint(-(2**31), 2**31 - 1, (n, k // 8), device=DEVICE, dtype=torch.int32)
    scales = torch.rand(n, k // 128, device=DEVICE).mul_(k**-0.5 / 4).to(DTYPE)
    return formats.Int4Weight(words, scales, None, 128, torch.Size((n, k)))


class Call:
    """A case's inputs, and the engine's launch on one of its weights."""

    def __init__(self, case: Case, out: int | None = None) -> None:
        s, self.case = case.shape, case
        rows = s.out if out is None else out
        n_out = rows // 2 if s.swiglu else rows
        self.x = torch.randn(case.tokens, s.inputs, device=DEVICE, dtype=DTYPE)
        fused = s.norm and case.tokens <= products.FUSED
        self.norm = torch.ones(s.inputs, device=DEVICE, dtype=DTYPE) if fused else None
        shape = (case.tokens, n_out)
        self.residual = torch.randn(shape, device=DEVICE, dtype=DTYPE) if s.residual else None
        self.out = torch.empty(shape, device=DEVICE, dtype=DTYPE)

    def __call__(self, weight: formats.Weight) -> Tensor:
        s = self.case.shape
        return matmul.skinny(self.x, weight, None, self.norm, 1e-5, self.residual, s.swiglu,
                             self.out)

    def check(self, weight: formats.Weight) -> None:
        """Compare with PyTorch's product of the unpacked weight."""
        s = self.case.shape
        dense = weight if isinstance(weight, Tensor) else matmul_convert.dequantize(weight)
        want = products.composed(self.x, dense, None, self.norm, 1e-5, self.residual, s.swiglu,
                                 None).float()
        self.out.fill_(torch.nan)
        error = float((self(weight).float() - want).norm() / want.norm())
        if not error < 0.02:
            raise RuntimeError(f"{self.case} is off by {error:.1%} of its norm.")


def median_s(calls: Sequence[Callable[[], object]], samples: int) -> list[float]:
    """Seconds of one call, by sample: on a GPU all of them in one CUDA graph."""
    if DEVICE == "cpu":
        return samples_s(lambda _: calls[0](), "cpu", 1, 0)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        calls[0]()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
    times = samples_s(lambda _: graph.replay(), "cuda", samples, warmup=2)
    return [t / len(calls) for t in times]


def copies(weight: formats.Weight) -> int:
    """How many weights are needed to leave nothing in the cache."""
    return 1 if INTERPRETED else max(2, min(24, -(-ROTATED // weight.nbytes)))


@contextmanager
def without_overlap() -> Iterator[None]:
    """Launches that wait for the end of the one before."""
    matmul.PDL = False
    try:
        yield
    finally:
        matmul.PDL = True


# ---------------------------------------------------------------- compiling, several at once


def compile_part(part: Sequence[Case]) -> None:
    """Launch each case once, so that its kernel is in Triton's cache on disk."""
    for case in part:
        Call(case)(made(case.kind, case.shape.out, case.shape.inputs))
    torch.cuda.synchronize()


def compile_all(chosen: Sequence[Case], processes: int = 15) -> None:
    """One case of each kernel, by several processes: each compiles for seconds on one core."""
    if INTERPRETED:
        return
    different = {(c.kind, c.shape, min(language.power_of_two(c.tokens), 128) if c.tokens > 64 else
                  64 if c.tokens > 16 else 16 if c.tokens > 1 else 1): c for c in chosen}
    work = list(different.values())
    with multiprocessing.get_context("spawn").Pool(min(processes, os.cpu_count() or 1)) as pool:
        pool.map(compile_part, [work[i::processes] for i in range(processes)], chunksize=1)


# ---------------------------------------------------------------- what is measured


def label(kind: str) -> str:
    return "bf16" if kind == "dense" else kind


def measure_products(r: Any, chosen: Sequence[Case], samples: int) -> dict[Case, float]:
    """Every case over rotated weights, beside cuBLAS; fills the table `products`."""
    best: dict[Case, float] = {}
    cublas: dict[tuple[Shape, int], float] = {}
    rows = []
    for shape, kind in dict.fromkeys((c.shape, c.kind) for c in
                                     sorted(chosen, key=lambda c: c.kind != "dense")):
        first = made(kind, shape.out, shape.inputs)
        weights = [first, *(made(kind, shape.out, shape.inputs) for _ in range(copies(first) - 1))]
        turns = weights * (2 if len(weights) < 8 else 1)
        for case in (c for c in chosen if (c.shape, c.kind) == (shape, kind)):
            call = Call(case)
            call.check(first)
            times = median_s([lambda w=w, call=call: call(w) for w in turns], samples)
            best[case] = time_s = statistics.median(times)
            rate = first.nbytes / time_s
            rows.append([label(kind), shape.name, shape.out, shape.inputs, case.tokens, time_s,
                         rate])
            if case.tokens == 1:
                r.value(f"{label(kind)}_{shape.name}", [first.nbytes / t for t in times],
                        unit="byte/s", note=f"{shape.out} x {shape.inputs}, 1 token, weight bytes")
        if kind == "dense":
            for n in sorted({c.tokens for c in chosen if c.shape == shape}):
                x = torch.randn(n, shape.inputs, device=DEVICE, dtype=DTYPE)
                times = median_s([lambda w=w, x=x: F.linear(x, w) for w in turns], samples)
                cublas[shape, n] = statistics.median(times)
                if n == 1:
                    r.value(f"cublas_{shape.name}", [first.nbytes / t for t in times],
                            unit="byte/s", note="cuBLAS, bf16, 1 token, the bare product")
        print(f"  {shape.name} {label(kind)}: " + ", ".join(
            f"{c.tokens}: {t * 1e6:.1f} us" for c, t in best.items()
            if (c.shape, c.kind) == (shape, kind)), flush=True)
    for row, case in zip(rows, best, strict=True):
        beside = cublas.get((case.shape, case.tokens))
        row += [beside, beside / row[5] if beside else None]
    r.table("products", columns=[("format", ""), ("shape", ""), ("out", ""), ("in", ""),
                                 ("tokens", ""), ("time", "s"), ("rate", "byte/s"),
                                 ("cublas", "s"), ("speedup", "")], rows=rows)
    for kind in ("int8", "int4"):
        for n in (16, 64):
            mine = [best.get(Case(s, kind, n)) for s in LLAMA]
            theirs = [cublas.get((s, n)) for s in LLAMA]
            if all(mine) and all(theirs):
                r.value(f"{kind}_speedup_m{n}", sum(theirs) / sum(mine), unit="",  # type: ignore
                        note=f"cuBLAS bf16 over {kind}, {n} tokens, sum of a layer's products")
    return best


def measure_layers(r: Any, samples: int) -> None:
    """The four products of several layers in a row, one token, with and without overlap."""
    for name, shapes, layers, kinds in (("8b", LLAMA, 6, ("dense", "int8", "int4")),
                                        ("06b", QWEN, 28, ("dense",))):
        for kind in kinds:
            if INTERPRETED:
                shapes, layers = TINY, 1
            work = [(Call(Case(s, kind, 1)), made(kind, s.out, s.inputs))
                    for _ in range(layers) for s in shapes]
            calls = [lambda call=call, w=w: call(w) for call, w in work]
            read = sum(w.nbytes for _, w in work) / layers
            key = f"layer_{name}_{label(kind)}"
            times = [t * len(shapes) for t in median_s(calls, samples)]
            r.value(key, times, unit="s", note="four products with norm, SwiGLU and residual")
            r.value(f"{key}_rate", [read / t for t in times], unit="byte/s")
            with without_overlap():
                r.value(f"{key}_no_pdl", [t * len(shapes) for t in median_s(calls, samples)],
                        unit="s", note="the same, each launch after the end of the one before")
            print(f"  {key}: {statistics.median(times) * 1e6:.1f} us", flush=True)


def measure_tinygemm(r: Any, samples: int) -> None:
    """PyTorch's own int4 product, group 128, where this build has it."""
    if INTERPRETED:
        return
    for shape in LLAMA[1:]:
        n, k = shape.out, shape.inputs
        try:
            packed = [torch.ops.aten._convert_weight_to_int4pack(
                torch.randint(0, 256, (n, k // 2), device=DEVICE, dtype=torch.uint8), 8)
                for _ in range(max(2, -(-ROTATED // (n * k // 2))))]
            scales = torch.rand(k // 128, n, 2, device=DEVICE).to(DTYPE)
            for tokens in (1, 16):
                x = torch.randn(tokens, k, device=DEVICE, dtype=DTYPE)
                times = median_s([lambda w=w, x=x, s=scales: torch.ops.aten._weight_int4pack_mm(
                    x, w, 128, s) for w in packed], samples)
                r.value(f"tinygemm_{shape.name}_m{tokens}", times, unit="s",
                        note=f"PyTorch's int4 product, {n} x {k}")
        except (RuntimeError, AttributeError) as problem:
            print(f"  no tinygemm for {shape.name}: {str(problem)[:80]}", flush=True)


STEPS: tuple[tuple[str, dict[str, Any], bool, bool], ...] = (
    # what the step adds; configuration; assembly; overlap
    ("rows in pieces", {"rows": 4, "words": 256, "warps": 2, "whole": False, "programs": 1},
     False, False),
    ("x stays in registers", {"rows": 8, "words": 512, "warps": 8, "whole": True, "programs": 2},
     False, False),
    ("one instruction a nibble", {"rows": 8, "words": 512, "warps": 8, "whole": True,
                                  "programs": 2}, True, False),
    ("overlap", {"rows": 8, "words": 512, "warps": 8, "whole": True, "programs": 2}, True, True),
)


def measure_steps(r: Any, samples: int) -> None:
    """The int4 kernel for one token with its ideas added one by one."""
    shape = TINY[1] if INTERPRETED else LLAMA[2]
    call, rows = Call(Case(shape, "int4", 1)), []
    weights = [made("int4", shape.out, shape.inputs) for _ in range(1 if INTERPRETED else 6)]
    compiled = matmul.compiled
    for name, config, assembly, overlap in STEPS:
        def run(w: formats.Weight, config: dict[str, Any] = config) -> object:
            return matmul.vector(call.x, w, None, call.norm, 1e-5, None, True, call.out, config)

        matmul.compiled = lambda device, assembly=assembly: assembly and compiled(device)
        matmul.PDL = overlap
        time_s = statistics.median(median_s([lambda w=w, run=run: run(w) for w in weights],
                                            samples))
        rows.append([name, time_s, weights[0].nbytes / time_s])
    matmul.compiled, matmul.PDL = compiled, True
    r.table("steps", columns=[("step", ""), ("time", "s"), ("rate", "byte/s")], rows=rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matmul_kernels",
                                     description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    samples = 2 if args.smoke else 9
    chosen = cases()
    with results.record("matmul_kernels", argv=argv, out=args.out, device=DEVICE) as r:
        compile_all(chosen)
        if not INTERPRETED:
            r.value("read_bandwidth", read_samples(DEVICE, 2 * GiB, 10)[0], unit="byte/s",
                    note="the fastest of four reductions")
        measure_products(r, chosen, samples)
        measure_layers(r, samples)
        measure_tinygemm(r, samples)
        measure_steps(r, samples)


if __name__ == "__main__":
    main(sys.argv[1:])
