"""The memory hierarchy of a GPU, seen from a kernel: latency and bandwidth by working set.

    python -m benchmarks.hierarchy [--smoke] [--out DIR]

Latency: one program follows a random cycle of addresses, each read from the one before, so that
no two loads overlap; the time per load is that of the level the working set fits in. One cycle
visits every 128-byte line of the buffer once, in an order that no prefetcher guesses.
Bandwidth: every SM reads the whole buffer again and again, each time another part, with loads
that bypass L1 (`.cg`): small buffers show L2, large ones HBM. Needs Triton and a GPU; with
--smoke it checks itself on a CPU under TRITON_INTERPRET=1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence

if "--smoke" in sys.argv:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.limits import samples_s
from infero import results

LINE_BYTES = 128
KiB, MiB = 2**10, 2**20
BLOCK = 8192


@triton.jit
def chase_kernel(table, out, steps):
    """Follow table[i] -> i for `steps` dependent loads and store where it ends."""
    at = tl.load(out)
    for _ in range(steps):
        at = tl.load(table + at)
    tl.store(out, at)


@triton.jit
def read_kernel(data, out, blocks, rounds, BLOCK: tl.constexpr):
    """Sum `rounds` times a different share of `data`, [blocks * BLOCK] float32, past L1."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    total = tl.zeros((BLOCK,), tl.float32)
    for turn in range(rounds):
        first = (program + turn * 37) % programs
        for block in range(first, blocks, programs):
            offsets = block * BLOCK + tl.arange(0, BLOCK)
            total += tl.load(data + offsets, cache_modifier=".cg")
    tl.store(out + program, tl.sum(total))


def cycle(size_bytes: int, device: str) -> Tensor:
    """A buffer of int64 in which the first word of every line holds the index of the next one.

    The lines form a single random cycle: following it visits each once before it returns.
    """
    words = LINE_BYTES // 8
    lines = max(2, size_bytes // LINE_BYTES)
    order = torch.randperm(lines)
    table = torch.zeros(lines * words, dtype=torch.int64)
    table[order * words] = order.roll(-1) * words
    return table.to(device)


def check_cycle() -> None:
    """The cycle of a small buffer visits every line once."""
    table, at, seen = cycle(64 * LINE_BYTES, "cpu"), 0, set()
    while at not in seen:
        seen.add(at)
        at = int(table[at])
    if len(seen) != 64 or at != 0:
        raise RuntimeError(f"The chase visits {len(seen)} of 64 lines: its cycle is broken.")


def latency_samples(size_bytes: int, device: str, steps: int, n: int) -> list[float]:
    """Seconds per dependent load; the launch cancels in the difference of two lengths."""
    table = cycle(size_bytes, device)
    out = torch.zeros(1, dtype=torch.int64, device=device)
    lines = table.numel() // (LINE_BYTES // 8)
    table.sum()  # brings as much as fits into L2
    chase_kernel[(1,)](table, out, min(lines, 4 * steps), num_warps=1)  # and into L1

    def run(length: int) -> list[float]:
        return samples_s(lambda _: chase_kernel[(1,)](table, out, length, num_warps=1),
                         device, n, warmup=1)

    short, long = statistics.median(run(steps // 4)), run(steps + steps // 4)
    return [(t - short) / steps for t in long]


def bandwidth_samples(size_bytes: int, device: str, programs: int, traffic_bytes: float,
                      n: int) -> list[float]:
    """Byte/s read by all SMs from a buffer of this size, summed over several passes."""
    blocks = max(1, size_bytes // (4 * BLOCK))
    data = torch.randn(blocks * BLOCK, device=device)
    rounds = max(1, round(traffic_bytes / (4.0 * blocks * BLOCK)))
    out = torch.zeros(programs, device=device)

    def run(_: int) -> None:
        read_kernel[(programs,)](data, out, blocks, rounds, BLOCK=BLOCK, num_warps=8)

    times = samples_s(run, device, n, warmup=2)
    want = float(data.double().sum()) * rounds
    got = float(out.double().sum())
    if abs(got - want) > 1e-3 * (blocks * BLOCK * rounds) ** 0.5 * rounds**0.5 + 1e-3:
        raise RuntimeError(f"The kernel summed to {got}, not {want}: it did not read everything.")
    return [4.0 * blocks * BLOCK * rounds / t for t in times]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hierarchy", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    small = args.smoke
    device = "cpu" if small else "cuda"
    check_cycle()
    torch.manual_seed(0)

    sizes = [KiB * 2**i for i in range(4, 21)]  # 16 KiB to 1 GiB
    sizes += [32 * MiB - 7 * MiB, 40 * MiB, 48 * MiB]  # around the L2's edges
    sizes = sorted(sizes) if not small else [16 * KiB, 64 * KiB]
    sms = 4 if small else torch.cuda.get_device_properties(0).multi_processor_count
    with results.record("hierarchy", argv=argv, out=args.out, device=device) as r:
        rows = []
        for size in sizes:
            steps = 64 if small else 16_384
            times = latency_samples(size, device, steps, 3 if small else 7)
            rows.append([size, statistics.median(times)])
        r.table("latency", columns=[("working_set", "byte"), ("latency", "s")], rows=rows)
        rates = []
        for size in [s for s in sizes if small or s >= MiB]:
            samples = bandwidth_samples(size, device, 2 * sms, 2e5 if small else 4e9,
                                        3 if small else 10)
            rates.append([size, statistics.median(samples)])
        r.table("bandwidth", columns=[("working_set", "byte"), ("bandwidth", "byte/s")],
                rows=rates)
        if not small:
            near = dict(rows)
            speed = dict(rates)
            r.value("l1_latency", near[64 * KiB], unit="s", note="64 KiB working set")
            r.value("l2_latency", near[16 * MiB], unit="s", note="16 MiB working set")
            r.value("hbm_latency", near[256 * MiB], unit="s", note="256 MiB working set")
            r.value("hbm_bandwidth", speed[KiB * 2**20], unit="byte/s", note="1 GiB working set")
            r.value("bytes_in_flight", near[256 * MiB] * speed[KiB * 2**20], unit="byte",
                    note="latency times bandwidth of HBM")
            r.value("l2_bandwidth", speed[16 * MiB], unit="byte/s", note="16 MiB working set")


if __name__ == "__main__":
    main(sys.argv[1:])
