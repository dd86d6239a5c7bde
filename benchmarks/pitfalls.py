"""What each mistake in timing costs on this device: the numbers of chapter 3's table of traps.

    python -m benchmarks.pitfalls [--device cuda|cpu] [--smoke] [--out DIR]

Every trap is measured twice, once fallen into and once avoided, in this one run: no
synchronisation, no warm-up, a buffer that stays in the cache, zeros instead of random numbers, a
mean instead of a median, a wait in every step. Only the very first call needs a fresh process, so
it is measured first.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.roofline_sweep import graphed
from infero import bench, results

MiB = 2**20


def first_calls(r: results.Recorder, device: str, side: int, count: int) -> None:
    """The first matrix product of the process, and those that follow."""
    clock = bench.clock_of(device)
    start_s = time.perf_counter()
    a = torch.ones(side, side, device=device, dtype=torch.bfloat16)  # creates the CUDA context
    clock.synchronize()
    r.value("context", time.perf_counter() - start_s, unit="s", n=1,
            note="first use of the device in the process: the driver's context is made")
    out = torch.empty_like(a)
    samples = bench.time_it(lambda: torch.mm(a, a, out=out), clock, 0, count)
    r.value("first_call", samples[0], unit="s", n=1,
            note=f"first {side}^3 matrix product: library loaded, kernel chosen")
    r.value("second_call", samples[1], unit="s", n=1, note="the same once more")
    r.value("warm_call", samples[count // 2 :], unit="s", note="the same, warm")
    r.table("first_calls", columns=[("call", ""), ("time", "s")],
            rows=[[i, s] for i, s in enumerate(samples[:40])])


def unsynchronised(r: results.Recorder, device: str, sides: Sequence[int], n: int) -> None:
    """Host time of a launch taken for the time of the work, by size of a matrix product."""
    clock, blind = bench.clock_of(device), bench.CpuClock()
    rows = []
    for side in sides:
        a = torch.randn(side, side, device=device).to(torch.bfloat16)
        out = torch.empty_like(a)

        def run(a: Tensor = a, out: Tensor = out) -> None:
            torch.mm(a, a, out=out)

        right = bench.time_it(run, clock, 5, n)
        wrong = bench.time_it(run, blind, 0, min(n, 20))  # few: a full queue makes the host wait
        clock.synchronize()
        flops = 2 * side**3
        rows.append([side, statistics.median(wrong), statistics.median(right),
                     flops / statistics.median(wrong), flops / statistics.median(right)])
    r.table("no_synchronize", columns=[("side", ""), ("without", "s"), ("with", "s"),
                                       ("rate_without", "flop/s"), ("rate_with", "flop/s")],
            rows=rows)
    r.value("no_synchronize_time", rows[-1][1], unit="s", n=min(n, 20),
            note=f"{sides[-1]}^3 bf16 matrix product timed without waiting for the GPU")
    r.value("synchronize_time", rows[-1][2], unit="s", n=n, note="the same, waiting")
    r.value("no_synchronize_rate", rows[-1][3], unit="flop/s",
            note="the rate that would be claimed")
    r.value("synchronize_rate", rows[-1][4], unit="flop/s")


def in_cache(r: results.Recorder, device: str, sizes: Sequence[int], total: int, n: int) -> None:
    """Reading one buffer again and again, against buffers that push one another out of L2.

    Many sums go into one CUDA graph, so that no launch is timed.
    """
    rows = []
    for size in sizes:
        count = max(2, min(256, total // size))
        buffers = [torch.randn(size // 4, device=device) for _ in range(count)]
        rates = []
        for kept in (buffers[:1] * count, buffers):

            def run(kept: list[Tensor] = kept) -> None:
                for buffer in kept:
                    buffer.sum()

            samples = device_samples(functools.partial(graphed(run, device), 0), device, n)
            rates.append(statistics.median(count * size / s for s in samples))
        rows.append([size, *rates])
        del buffers
    r.table("cache", columns=[("buffer", "byte"), ("same", "byte/s"), ("rotated", "byte/s")],
            rows=rows)
    best = max(rows, key=lambda row: row[1] / row[2])
    r.value("cache_buffer", best[0], unit="byte", note="the buffer with the largest error")
    r.value("cache_same", best[1], unit="byte/s", n=n, note="sum of one buffer, over and over")
    r.value("cache_rotated", best[2], unit="byte/s", n=n, note="sum of buffers in turn")


def device_samples(run: Callable[[], object], device: str, n: int) -> list[float]:
    """Device time of each call: CUDA events, or the wall clock on a CPU."""
    if device == "cuda":
        return bench.cuda_event_samples(run, 10, n)
    return bench.time_it(run, bench.CpuClock(), 2, n)


def contents(r: results.Recorder, device: str, side: int, seconds: float) -> None:
    """A matrix product of zeros, of one constant and of random numbers: power is data."""
    kinds = {
        "zeros": torch.zeros(side, side, device=device),
        "ones": torch.ones(side, side, device=device),
        "normal": torch.randn(side, side, device=device),
    }
    out = torch.empty(side, side, device=device, dtype=torch.bfloat16)
    rows = []
    for name, values in kinds.items():
        a = values.to(torch.bfloat16)

        def run(a: Tensor = a) -> None:
            torch.mm(a, a, out=out)

        each = statistics.median(device_samples(run, device, 5))
        samples = device_samples(run, device, max(5, min(2000, round(seconds / each))))
        settled = samples[len(samples) // 2 :]  # the clocks have had time to fall
        rate = [2 * side**3 / s for s in settled]
        rows.append([name, statistics.median(rate)])
        r.value(f"matmul_{name}", rate, unit="flop/s", note=f"{side}^3 bf16 product of {name}")
    r.table("contents", columns=[("values", ""), ("rate", "flop/s")], rows=rows)


def settling(r: results.Recorder, device: str, side: int, n: int) -> None:
    """The same product n times from a rested device: clocks and temperature find their level."""
    a = torch.randn(side, side, device=device).to(torch.bfloat16)
    out = torch.empty_like(a)
    time.sleep(2.0 if device == "cuda" and n > 100 else 0.0)
    run = lambda: torch.mm(a, a, out=out)  # noqa: E731
    samples = bench.cuda_event_samples(run, 0, n) if device == "cuda" else device_samples(
        run, device, n)
    r.table("settling", columns=[("call", ""), ("time", "s")],
            rows=[[i, s] for i, s in enumerate(samples)])


def distribution(r: results.Recorder, device: str, n: int) -> None:
    """A thousand timings of one short piece of work, as a waiting host sees it."""
    x = torch.randn(1, 4096, device=device).to(torch.bfloat16)
    wide = 16384 if device == "cuda" else 1024  # 134 MB on a GPU: past L2, longer than a launch
    weight = torch.randn(4096, wide, device=device).to(torch.bfloat16)
    run = lambda: torch.mm(x, weight)  # noqa: E731
    host = bench.time_it(run, bench.clock_of(device), 20, n)
    inside = device_samples(run, device, n)
    r.table("distribution", columns=[("host", "s"), ("device", "s")],
            rows=[[round(h, 9), round(d, 9)] for h, d in zip(host, inside, strict=True)])
    for name, samples in (("host", host), ("device", inside)):
        timing = bench.Timing(tuple(samples))
        r.value(f"{name}_median", samples, unit="s", note=f"1 x 4096 by 4096 x {wide} bf16 product")
        r.value(f"{name}_mean", timing.mean_s, unit="s", n=n)
        r.value(f"{name}_min", min(samples), unit="s", n=n)
        r.value(f"{name}_p99", bench.percentile(samples, 99), unit="s", n=n)
        r.value(f"{name}_max", max(samples), unit="s", n=n)


def launches(r: results.Recorder, device: str, n: int) -> None:
    """What it costs the host to launch, to launch through a graph, and to wait."""
    clock = bench.clock_of(device)
    x = torch.zeros(64, device=device)
    inner = 200

    def many() -> None:
        for _ in range(inner):
            x.add_(1.0)

    def waiting() -> None:
        for _ in range(inner):
            x.add_(1.0)
            x[0].item()

    r.value("launch", [s / inner for s in bench.time_it(many, clock, 3, n)], unit="s",
            note=f"a tiny kernel, {inner} launched in a row from PyTorch")
    r.value("launch_and_wait", [s / inner for s in bench.time_it(waiting, clock, 3, n)], unit="s",
            note="the same with .item() after each")
    if device == "cuda":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            many()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            many()
        r.value("launch_in_graph", [s / inner for s in bench.time_it(graph.replay, clock, 3, n)],
                unit="s", note="the same kernels in one CUDA graph")
        nothing = bench.cuda_event_samples(lambda: None, 5, n)
        r.value("empty_events", nothing, unit="s", note="two CUDA events with nothing between")
    r.value("empty_timer", bench.time_it(lambda: None, clock, 5, n), unit="s",
            note="the timer around nothing: what it adds to every sample")
    a = torch.randn(64 * MiB // 4) if device == "cpu" else torch.randn(64 * MiB // 4).pin_memory()
    b = torch.randn(64 * MiB // 4)
    for name, source in (("pinned", a), ("pageable", b)):
        samples = bench.time_it(lambda s=source: s.to(device, copy=True), clock, 2, max(3, n // 5))
        r.value(f"copy_{name}", [64 * MiB / s for s in samples], unit="byte/s",
                note="64 MiB from host to device")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pitfalls", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    device, small = args.device, args.smoke or args.device == "cpu"

    with results.record("pitfalls", argv=argv, out=args.out, device=device) as r:
        first_calls(r, device, 256 if small else 4096, 10 if small else 100)
        check = torch.randn(64, 64, device=device).to(torch.bfloat16)
        error = float((check @ check - (check.float() @ check.float())).abs().max())
        if error > 0.5:
            raise RuntimeError(f"The product of two matrices is off by {error}.")
        unsynchronised(r, device, [128, 256] if small else [256, 512, 1024, 2048, 4096, 8192],
                       5 if small else 50)
        sizes = [2**i * MiB for i in ((0, 1) if small else range(1, 11))]
        in_cache(r, device, sizes, (4 if small else 4096) * MiB, 5 if small else 20)
        contents(r, device, 256 if small else 8192, 0.01 if small else 4.0)
        settling(r, device, 256 if small else 8192, 20 if small else 1500)
        distribution(r, device, 50 if small else 1000)
        launches(r, device, 5 if small else 50)


if __name__ == "__main__":
    main(sys.argv[1:])
