"""Chapter 13's experiments: what an access pattern costs, and what fusing saves.

    python -m benchmarks.gpu_experiments [--no-compile] [--smoke] [--out DIR]

Coalescing, shared-memory banks, occupancy and the transpose are measured with the CUDA C++ of
infero/kernels/cuda/experiments.cu, which needs nvcc; the fused kernels in PyTorch's operations,
torch.compile, Triton (the labs' and the engine's) and CUDA C++. Each bandwidth stands beside the
copy or read limit of the same run, and every kernel's result is checked before it is timed.
--smoke checks the Triton half at tiny sizes, on a CPU too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.gpu_access import banks, median, resident, strided, transposes, wide
from benchmarks.limits import copy_samples, read_samples
from infero import model, results
from infero.kernels import cuda
from infero.kernels.language import INTERPRETED, triton
from infero.kernels.steps import coalescing, elementwise

GiB = 2**30
STRIDES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
OFFSETS = (0, 1, 2, 4, 8, 12, 16, 24, 31, 32)
BANK_STRIDES = (0, 1, 2, 3, 4, 5, 8, 12, 16, 24, 31, 32, 33, 64)
RESIDENT = ((32, 1), (64, 1), (128, 1), (128, 2), (128, 3), (128, 4), (128, 6), (128, 8),
            (128, 12), (128, 16))  # (threads of a block, blocks an SM): 1 to 64 warps


# ------------------------------------------------------------------ fusion


def ways_of(name: str, compile_too: bool) -> list[tuple[str, Callable[..., Tensor]]]:
    """Ways to compute one operation, by a readable name; the labs' kernel among them."""
    plain = getattr(model, name)
    ways = [("PyTorch operations", plain)]
    if compile_too:
        ways.append(("torch.compile", torch.compile(plain)))
    ways.append(("Triton, lab 13", getattr(elementwise, name)))
    if name == "rope":
        ways.append(("Triton, one warp", rope_one_warp))
        ways.append(("Triton, a token a program", elementwise.rope_by_token))
    if not INTERPRETED:
        from infero.kernels import activations, norms, rotary

        engine = {"rms_norm": norms.rms_norm, "swiglu": activations.swiglu, "rope": rotary.rotate}
        ways.append(("Triton, engine", engine[name]))
        if name == "rms_norm" and not cuda.missing():
            ways.append(("CUDA C++, plain", lambda *a: cuda.rms_norm(*a, plain=True)))
            ways.append(("CUDA C++, 16 bytes a load", cuda.rms_norm))
    return ways


def rope_one_warp(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """The lab's rope kernel with 32 threads a program in the place of 128."""
    tokens, heads, dim = x.shape
    out = torch.empty(tokens, heads, dim, dtype=x.dtype, device=x.device)
    elementwise.rope_kernel[(tokens, heads)](
        x, positions, inv_freq, out, heads, dim // 2, x.stride(0),
        BLOCK=triton.next_power_of_2(dim // 2), num_warps=1)
    return out


def cases(small: bool, device: str) -> dict[str, tuple[list[tuple], int]]:
    """Operation -> (two sets of arguments, bytes in and out of one call)."""
    dtype = torch.float32 if small else torch.bfloat16
    size = 4 if small else 2
    rows, n = (5, 70) if small else (32_768, 4096)
    tokens, inter = (3, 70) if small else (8192, 14_336)
    heads, dim = (3, 16) if small else (40, 128)

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    weight = made(n) + 1
    positions = torch.arange(rows, device=device) % 8192
    inv_freq = 10_000.0 ** (-torch.arange(dim // 2, device=device) / (dim / 2))
    halves = [made(tokens, 2 * inter) for _ in range(2)]
    return {
        "rms_norm": ([(made(rows, n), weight, 1e-5) for _ in range(2)], 2 * size * rows * n),
        "swiglu": ([(h[:, :inter], h[:, inter:]) for h in halves], 3 * size * tokens * inter),
        "rope": ([(made(rows, heads, dim), positions, inv_freq.float()) for _ in range(2)],
                 2 * size * rows * heads * dim),
    }


def fusion(small: bool, compile_too: bool, device: str) -> list[list[object]]:
    """Rows (operation, way, byte/s of what must be read and written)."""
    rows: list[list[object]] = []
    for name, (arguments, size) in cases(small, device).items():
        first = [a[:64] if isinstance(a, Tensor) and a.dim() > 1 else a for a in arguments[0]]
        if name == "rope":
            first[1] = arguments[0][1][:64]
        want = getattr(model, name)(*(a.double() if isinstance(a, Tensor) and
                                      a.is_floating_point() and name != "rope" else a
                                      for a in first)).double()
        for way, function in ways_of(name, compile_too):
            try:
                got = function(*arguments[0])[:64].double()
            except Exception as problem:  # the compiler is an alternative, not a necessity
                if way != "torch.compile":
                    raise
                print(f"{name}: torch.compile failed ({problem}); left out", file=sys.stderr)
                continue
            error = float((got - want).abs().max() / want.abs().max())
            if not error < 0.02:
                raise RuntimeError(f"{name}, {way}: off by {error:.1%} of the largest value.")
            seconds = median(lambda i, f=function, a=arguments: f(*a[i % 2]))
            rows.append([name, way, size / seconds])
    return rows


def decode() -> list[list[object]]:
    """RMSNorm of one token: (way, seconds a call from the host, seconds a call in a graph)."""
    x, weight = torch.randn(1, 4096, device="cuda").bfloat16(), torch.ones(4096, device="cuda")
    weight = weight.bfloat16()
    rows: list[list[object]] = []
    for way, function in ways_of("rms_norm", False):  # compiling chapter 16 measures
        def once(_: int, f: Callable[..., Tensor] = function) -> Tensor:
            return f(x, weight, 1e-5)

        for i in range(3):
            once(i)
        torch.cuda.synchronize()
        calls = 500
        begin = time.perf_counter()
        for i in range(calls):
            once(i)
        torch.cuda.synchronize()
        host = (time.perf_counter() - begin) / calls
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(100):
                once(i)
        rows.append([way, host, median(lambda _, g=graph: g.replay()) / 100])
    return rows


def warps(x: Tensor, weight: Tensor) -> list[list[object]]:
    """The lab's rms_norm kernel by num_warps: registers a thread, spilled, byte/s."""
    rows: list[list[object]] = []
    out, n = torch.empty_like(x), x.shape[1]
    for count in (1, 2, 4, 8, 16, 32):
        def run(_: int, w: int = count) -> object:
            return elementwise.rms_norm_kernel[(len(x),)](
                x, weight, out, n, 1e-5, BLOCK=triton.next_power_of_2(n), num_warps=w)

        kernel = run(0)
        rate = 2 * x.numel() * x.element_size() / median(run)
        rows.append([count, int(getattr(kernel, "n_regs", -1)),
                     int(getattr(kernel, "n_spills", -1)), rate])
    return rows


def tails() -> list[list[object]]:
    """The lab's rms_norm on rows of 4,096 numbers, one less and one more: (n, byte/s)."""
    rows: list[list[object]] = []
    for n in (4096, 4095, 4097):
        x, weight = torch.randn(32_768, n, device="cuda").bfloat16(), torch.ones(n, device="cuda")
        seconds = median(lambda _, x=x, w=weight.bfloat16(): elementwise.rms_norm(x, w, 1e-5))
        rows.append([n, 4 * x.numel() / seconds])
    return rows


def first_call(device: str) -> tuple[float, float]:
    """Seconds of a kernel's first call with a new constant, and of the next one."""
    x, weight = torch.randn(8, 1500, device=device), torch.ones(1500, device=device)
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        elementwise.rms_norm(x, weight, 1e-5)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return times[0], times[1]


def launches() -> list[list[object]]:
    """Seconds the host needs to start one kernel, by who starts it; the GPU's part overlaps."""
    x = torch.ones(32, device="cuda")
    gate = torch.ones(1, 32, device="cuda")
    out = torch.empty_like(gate)
    lib = cuda.library("experiments")
    kernel = elementwise.swiglu_kernel
    ways: list[tuple[str, Callable[[], object]]] = [
        ("PyTorch operation", lambda: x.add_(1)),
        ("Triton kernel", lambda: kernel[(1, 1)](gate, gate, out, 32, 32, BLOCK=32)),
        ("CUDA C++ through ctypes", lambda: lib.infero_nothing(cuda.stream())),
    ]
    rows: list[list[object]] = []
    for name, run in ways:
        for _ in range(20):
            run()
        samples = []
        for _ in range(7):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(300):
                run()
            samples.append((time.perf_counter() - begin) / 300)
        rows.append([name, statistics.median(samples)])
    return rows


# ------------------------------------------------------------------ all of it


def patterns(r: results.Recorder) -> None:
    """The experiments that need CUDA C++."""
    facts = torch.cuda.get_device_properties(0)
    sms, count = facts.multi_processor_count, 2**26
    limit = read_samples("cuda", 2 * GiB, 10)[0]
    r.value("read_limit", limit, unit="byte/s", note="fastest reduction of 2 GiB, in this run")
    top = statistics.median(limit)
    data = torch.empty(32 * count + 64, device="cuda").uniform_()
    blocks = 8 * sms
    best = strided(data, count, 1, 0, blocks)
    r.value("read_unit", best, unit="byte/s", note="read_strided with stride 1, 256 MiB")
    rows = []
    for s in STRIDES:
        share = coalescing.efficiency(range(0, 32 * s, s), 4)
        rows.append([s, strided(data, count, s, 0, blocks), top * share,
                     coalescing.sectors(range(0, 32 * s, s), 4)])
    r.table("stride", rows=rows, columns=[("stride", ""), ("bandwidth", "byte/s"),
                                          ("predicted", "byte/s"), ("sectors", "")])
    r.table("offset", columns=[("offset", ""), ("bandwidth", "byte/s"), ("sectors", "")],
            rows=[[o, strided(data, count, 1, o, blocks),
                   coalescing.sectors(range(o, o + 32), 4)] for o in OFFSETS])
    for name, stride in (("stride_2", 2), ("stride_8", 8), ("stride_32", 32)):
        found = next(row for row in rows if row[0] == stride)
        r.value(name, found[1], unit="byte/s")
        r.value(f"{name}_share", found[1] / best, unit="", note="of stride 1")
    part = data[: 2**28]
    r.table("width", columns=[("width", "byte"), ("bandwidth", "byte/s")],
            rows=[[w, wide(part, w, blocks)] for w in (1, 2, 4, 8, 16)])
    occupancy = []
    for threads, per_sm in RESIDENT:
        small = part[: 2**26] if threads * per_sm < 512 else part
        occupancy.append([threads * per_sm // 32, resident(small, 4, threads, per_sm, facts),
                          resident(small, 16, threads, per_sm, facts)])
    r.table("occupancy", rows=occupancy, columns=[
        ("warps", ""), ("bandwidth_4", "byte/s"), ("bandwidth_16", "byte/s")])
    for at in (4, 16, 64):
        row = next(row for row in occupancy if row[0] == at)
        r.value(f"warps_{at}", row[1], unit="byte/s", note="4 bytes a load")
        r.value(f"warps_{at}_wide", row[2], unit="byte/s", note="16 bytes a load")
    del data, part
    free = banks(1, sms)
    r.value("shared_bandwidth", free, unit="byte/s", note="all SMs, no conflicts")
    rows = []
    for s in BANK_STRIDES:
        degree = coalescing.bank_conflicts([lane * s for lane in range(32)])
        rows.append([s, free / banks(s, sms), degree])
    r.table("banks", rows=rows,
            columns=[("stride", ""), ("slowdown", ""), ("rounds", "")])
    r.value("banks_32", next(row[1] for row in rows if row[0] == 32), unit="",
            note="time of stride 32 over stride 1")
    r.value("banks_33", next(row[1] for row in rows if row[0] == 33), unit="")
    found = transposes(16_384)
    r.table("transpose", columns=[("way", ""), ("bandwidth", "byte/s")],
            rows=[list(row) for row in found])
    for key, row in zip(("naive", "shared", "padded", "triton", "torch"), found, strict=True):
        r.value(f"transpose_{key}", row[1], unit="byte/s")
    r.table("launch", columns=[("way", ""), ("time", "s")], rows=launches())


KEYS = {"PyTorch operations": "eager", "torch.compile": "compile", "Triton, lab 13": "steps",
        "Triton, one warp": "warp", "Triton, a token a program": "token",
        "Triton, engine": "engine", "CUDA C++, plain": "cuda_plain",
        "CUDA C++, 16 bytes a load": "cuda"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_experiments",
                                     description=__doc__)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, the Triton half only")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    small, device = args.smoke, "cpu" if INTERPRETED else "cuda"
    compile_too = not (args.no_compile or small)
    torch.manual_seed(0)
    with results.record("gpu_experiments", argv=argv, out=args.out, device=device) as r:
        if not small:
            copied = copy_samples("cuda", GiB, 20)
            r.value("copy_limit", copied, unit="byte/s", note="1 GiB copied, in this run")
            top = statistics.median(copied)
        rows = fusion(small, compile_too, device)
        r.table("fusion", columns=[("operation", ""), ("way", ""), ("bandwidth", "byte/s")],
                rows=rows)
        first, following = first_call(device)  # Triton itself is warm by now
        r.value("first_call", first, unit="s", note="compiles for a new constant")
        r.value("next_call", following, unit="s")
        if small:
            return
        for name, way, rate in rows:
            r.value(f"{name}_{KEYS[str(way)]}", float(rate), unit="byte/s")
            r.value(f"{name}_{KEYS[str(way)]}_share", float(rate) / top, unit="",
                    note="of the copy limit of this run")
        rate = {(str(name), KEYS[str(way)]): float(value) for name, way, value in rows}
        for name in ("rms_norm", "swiglu", "rope"):
            r.value(f"{name}_gain", rate[name, "steps"] / rate[name, "eager"], unit="",
                    note="the lab's kernel over PyTorch's operations")
        arguments = cases(False, device)["rms_norm"][0][0]
        r.table("warps", rows=warps(*arguments[:2]), columns=[
            ("warps", ""), ("registers", ""), ("spills", ""), ("bandwidth", "byte/s")])
        odd = tails()
        r.table("tail", columns=[("n", ""), ("bandwidth", "byte/s")], rows=odd)
        for n, value in odd:
            r.value(f"tail_{n}", float(value), unit="byte/s")
        alone = decode()
        r.table("decode", rows=alone, columns=[("way", ""), ("from_host", "s"), ("in_graph", "s")])
        for way, host, graph in alone:
            r.value(f"decode_{KEYS[str(way)]}_host", float(host), unit="s")
            r.value(f"decode_{KEYS[str(way)]}_graph", float(graph), unit="s")
        if words := cuda.missing():
            print(f"Without CUDA C++ ({words}): no access patterns.", file=sys.stderr)
            return
        patterns(r)


if __name__ == "__main__":
    main(sys.argv[1:])
