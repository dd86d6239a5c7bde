"""The limits of this device: how fast it copies, reads and multiplies matrices.

    python -m benchmarks.limits [--device cuda|cpu] [--smoke] [--out DIR]

Every other number of the book is compared with these, so they are taken carefully: buffers far
larger than any cache, random data (zeros draw less power and run faster), a warm-up until the
clocks settle, many repetitions, the median and the spread, and a check of each result. The read
limit is the best of several ways to read, because a limit is what the device can do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch

from infero import results

GiB = 2**30


def samples_s(run: Callable[[int], object], device: str, n: int, warmup: int) -> list[float]:
    """Seconds of each of n calls run(i): CUDA events on a GPU, the wall clock on a CPU."""
    for i in range(warmup):
        run(i)
    if device == "cpu":
        times = []
        for i in range(n):
            start = time.perf_counter()
            run(i)
            times.append(time.perf_counter() - start)
        return times
    torch.cuda.synchronize()
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(n)
    ]
    for i, (start_event, end_event) in enumerate(events):
        start_event.record()
        run(i)
        end_event.record()
    torch.cuda.synchronize()
    return [start_event.elapsed_time(end_event) * 1e-3 for start_event, end_event in events]


def copy_samples(device: str, size_bytes: int, n: int) -> list[float]:
    """Bandwidth samples of a copy in byte/s, read and written bytes added."""
    count = size_bytes // 4
    sources = [torch.randn(count, device=device) for _ in range(2)]
    target = torch.empty_like(sources[0])
    times = samples_s(lambda i: target.copy_(sources[i % 2]), device, n, warmup=max(3, n // 5))
    if not torch.equal(target, sources[(n - 1) % 2]):
        raise RuntimeError("The copy differs from its source: the device or its memory is faulty.")
    return [2 * size_bytes / t for t in times]


def read_samples(device: str, size_bytes: int, n: int) -> tuple[list[float], str]:
    """Bandwidth samples of the fastest of several reductions, and that reduction's name."""
    count = size_bytes // 4
    buffers = [torch.randn(count, device=device) for _ in range(2)]
    wide = [b.view(-1, 2**14) for b in buffers]
    ways: dict[str, Callable[[int], torch.Tensor]] = {
        "sum": lambda i: buffers[i % 2].sum(),
        "max": lambda i: buffers[i % 2].max(),
        "row sums": lambda i: wide[i % 2].sum(dim=1),
        "row maxima": lambda i: wide[i % 2].amax(dim=1),
    }
    best: tuple[list[float], str] = ([], "")
    for name, way in ways.items():
        times = samples_s(way, device, n, warmup=max(3, n // 5))
        rates = [size_bytes / t for t in times]
        if not best[0] or statistics.median(rates) > statistics.median(best[0]):
            best = (rates, name)
    expected = sum(float(part.double().sum()) for part in buffers[0].split(2**24))
    got = float(ways["row sums"](0).double().sum())
    if abs(got - expected) > 1e-3 * count**0.5 + 1e-4 * abs(expected):
        raise RuntimeError(f"The sum is {got}, not {expected}: part of the buffer was not read.")
    return best


def matmul_samples(device: str, size: int, dtype: torch.dtype, n: int) -> list[float]:
    """Rate samples in flop/s of a [size, size] by [size, size] product of random numbers."""
    a = [torch.randn(size, size, device=device).to(dtype) for _ in range(2)]
    b = [torch.randn(size, size, device=device).to(dtype) for _ in range(2)]
    out = torch.empty(size, size, device=device, dtype=dtype)
    times = samples_s(
        lambda i: torch.mm(a[i % 2], b[i % 2], out=out), device, n, warmup=max(3, n // 2)
    )
    last = (n - 1) % 2
    want = a[last][:8].double() @ b[last].double()
    error = float((out[:8].double() - want).abs().max() / want.abs().max())
    if error > 0.02:
        raise RuntimeError(f"The {dtype} product is off by {error:.1%} of its largest entry.")
    return [2 * size**3 / t for t in times]


def fp8_samples(device: str, size: int, n: int) -> list[float]:
    """Rate samples in flop/s of an FP8 (E4M3) product with bf16 output, one scale a tensor."""
    kind = torch.float8_e4m3fn
    a = torch.randn(size, size, device=device).to(kind)
    b = torch.randn(size, size, device=device).to(kind)
    one = torch.ones((), device=device)

    def run(_: int) -> torch.Tensor:
        return torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    times = samples_s(run, device, n, warmup=max(3, n // 2))
    want = a[:8].double() @ b.double().t()
    error = float((run(0)[:8].double() - want).abs().max() / want.abs().max())
    if error > 0.02:
        raise RuntimeError(f"The FP8 product is off by {error:.1%} of its largest entry.")
    return [2 * size**3 / t for t in times]


def rest(device: str, smoke: bool) -> None:
    """Let a GPU cool for two seconds: after a long burst its power limit lowers the clock."""
    if device == "cuda" and not smoke:
        torch.cuda.synchronize()
        time.sleep(2)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    cuda = args.device == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = False

    size_bytes = (4 * GiB if cuda else GiB // 4) if not args.smoke else 2**22
    side = (8192 if cuda else 2048) if not args.smoke else 256
    n = (50 if cuda else 15) if not args.smoke else 3
    with results.record("limits", argv=argv, out=args.out, device=args.device) as r:
        copied = copy_samples(args.device, size_bytes, n)
        r.value("copy_bandwidth", copied, unit="byte/s",
                note=f"{size_bytes // 2**20} MiB copied; bytes read and written added")
        read, way = read_samples(args.device, size_bytes, n)
        r.value("read_bandwidth", read, unit="byte/s",
                note=f"{way} of {size_bytes // 2**20} MiB, the fastest of four reductions")
        matmul_n = min(n, 10)
        rest(args.device, args.smoke)
        r.value("matmul_bf16", matmul_samples(args.device, side, torch.bfloat16, matmul_n),
                unit="flop/s", note=f"{side}^3 product of normal numbers, {matmul_n} in a row")
        if cuda:  # long enough for the power limit to lower the clock
            n_long = 400 if not args.smoke else 3
            r.value("matmul_bf16_sustained",
                    matmul_samples(args.device, side, torch.bfloat16, n_long), unit="flop/s",
                    note=f"the same product {n_long} times in a row")
            rest(args.device, args.smoke)
        fp32_side = side if not cuda else side // 2
        r.value("matmul_fp32", matmul_samples(args.device, fp32_side, torch.float32, matmul_n),
                unit="flop/s", note=f"{fp32_side}^3 product, TF32 off")
        if cuda:
            facts = torch.cuda.get_device_properties(0)
            if torch.cuda.get_device_capability(0) >= (8, 9):
                r.value("matmul_fp8", fp8_samples(args.device, side, matmul_n), unit="flop/s",
                        note=f"{side}^3 product, E4M3 in, bf16 out")
            r.value("sm_count", facts.multi_processor_count, unit="")
            r.value("memory", facts.total_memory, unit="byte")
            r.value("l2_size", facts.L2_cache_size, unit="byte")
            r.value("shared_memory_per_sm", facts.shared_memory_per_multiprocessor, unit="byte")
            r.value("registers_per_sm", facts.regs_per_multiprocessor * 4, unit="byte")
        else:
            r.value("threads", torch.get_num_threads(), unit="",
                    note=f"of {os.cpu_count()} processors")


if __name__ == "__main__":
    main(sys.argv[1:])
