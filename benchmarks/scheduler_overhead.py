"""What scheduling costs without a model, from 32 to 1,024 running requests.

    python -m benchmarks.scheduler_overhead [--steps 300] [--repeats 3] [--smoke] [--out DIR]

A fake model answers at once, so a step is schedule and commit alone. The growth is stated as the
exponent of a power law fitted to the medians: 1 is linear. Then 10,000 more requests wait.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from infero import bench, results
from infero import bench_scheduler as b

SIZES = (32, 64, 128, 256, 512, 1024)
POLICIES = ("fcfs", "sjf", "priority")


def measure(sizes: Sequence[int], steps: int, repeats: int, policy: str
            ) -> dict[int, list[b.Overhead]]:
    """Every size `repeats` times, in turns; one untimed turn of the smallest goes before."""
    b.overhead(sizes[0], steps, policy=policy)
    found: dict[int, list[b.Overhead]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            found[size].append(b.overhead(size, steps, policy=policy))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler_overhead",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="timed steps of each size")
    parser.add_argument("--repeats", type=int, default=3, help="turns of all sizes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    sizes = (4, 8, 16) if args.smoke else SIZES
    steps, repeats = (5, 1) if args.smoke else (args.steps, args.repeats)
    queued = 50 if args.smoke else 10_000

    with results.record("scheduler_overhead", argv=argv, out=args.out, device="cpu") as r:
        for policy in POLICIES:
            found = measure(sizes, steps, repeats, policy)
            rows, medians = [], []
            for size, parts in found.items():
                steps_s = [s for one in parts for s in one.step_s]
                plans = bench.percentile([s for one in parts for s in one.schedule_s], 50)
                commits = bench.percentile([s for one in parts for s in one.commit_s], 50)
                medians.append(bench.percentile(steps_s, 50))
                rows.append([size, plans, commits, medians[-1], medians[-1] / size])
                r.value(f"{policy}_step_{size}", steps_s, unit="s",
                        note="schedule and commit of one decode step")
                print(f"{policy:>8} {size:5}: {1e6 * medians[-1]:9,.1f} µs a step",
                      file=sys.stderr)
            r.table(policy, [("running", ""), ("schedule", "s"), ("commit", "s"), ("step", "s"),
                             ("request", "s")], rows)
            r.value(f"{policy}_exponent", b.exponent(sizes, medians), unit="",
                    note="of the power law fitted to the medians; 1 is linear")
        long = [s for _ in range(repeats)
                for s in b.overhead(sizes[0], steps, waiting=queued).step_s]
        r.value("queued", queued, unit="", note="requests that wait")
        r.value("queued_step", long, unit="s",
                note=f"one step of {sizes[0]} running requests while {queued} wait")
        times = [b.add_times_s(queued) for _ in range(repeats)]
        r.value("queued_add", [t[0] / queued for t in times], unit="s", note="to queue one")
        r.value("queued_abort", [t[1] / queued for t in times], unit="s", note="to abort one")


if __name__ == "__main__":
    main()
