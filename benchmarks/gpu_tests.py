"""The GPU tests in several processes at once: compiling kernels takes most of their time.

    python -m benchmarks.gpu_tests [--processes 8] [-- PYTEST OPTIONS]

Each process collects tests/gpu and keeps its share: whole test functions, so that no two processes
compile the same kernels, and parts of one function only where it is larger than a share. The module
is also the pytest plugin that does the sharing. Nothing is recorded.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = max(1, min(8, (os.cpu_count() or 2) // 2))
COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|deselected|xfailed|warnings?)")
NOTHING = 5  # pytest's status when there was nothing to run


def share(names: Sequence[str], index: int, count: int) -> set[int]:
    """Which of the tests process `index` of `count` runs: places in `names`.

    Tests of one function stay together; the largest groups are dealt first, each to the process
    that has least. The same names give the same shares in every process.
    """
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name.partition("[")[0], []).append(place)
    most = -(-len(names) // count)
    parts = [group[at : at + most] for group in groups.values()
             for at in range(0, len(group), most)]
    hands: list[list[int]] = [[] for _ in range(count)]
    for part in sorted(parts, key=lambda part: (-len(part), part[0])):
        min(hands, key=len).extend(part)
    return set(hands[index])


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """pytest's hook: drop the tests of the other processes."""
    if spec := os.environ.get("INFERO_SHARD"):
        index, count = map(int, spec.split("/"))
        kept = share([item.nodeid for item in items], index, count)
        dropped = [item for place, item in enumerate(items) if place not in kept]
        items[:] = [item for place, item in enumerate(items) if place in kept]
        config.hook.pytest_deselected(items=dropped)


def totals(texts: Sequence[str]) -> dict[str, int]:
    """Sums of the numbers in pytest's last lines."""
    found: dict[str, int] = {}
    for text in texts:
        last = (text.strip().splitlines() or [""])[-1]
        for number, word in COUNTS.findall(last):
            word = {"errors": "error", "warnings": "warning"}.get(word, word)
            found[word] = found.get(word, 0) + int(number)
    return {word: n for word, n in found.items() if word not in ("deselected", "warning")}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_tests",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--smoke", action="store_true", help="accepted, changes nothing")
    parser.add_argument("--out", help="accepted; nothing is recorded")
    parser.add_argument("options", nargs="*", help="for pytest, after --")
    args = parser.parse_args(argv)
    if args.processes < 1:
        parser.error(f"--processes {args.processes}: at least 1")
    options = args.options or ["-m", "gpu", "tests/gpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(
        part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)}
    begun_s, texts, codes = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for index in range(args.processes):
            log = Path(folder) / f"{index}.log"
            command = [sys.executable, "-m", "pytest", "-q", "--durations", "3", "--color", "no",
                       "-p", "no:cacheprovider", "-p", "benchmarks.gpu_tests", *options]
            with log.open("w") as file:
                running.append((log, subprocess.Popen(
                    command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                    env=environment | {"INFERO_SHARD": f"{index}/{args.processes}"})))
        for log, process in running:
            codes.append(process.wait())
            texts.append(log.read_text(errors="replace"))
    for index, (code, text) in enumerate(zip(codes, texts, strict=True)):
        if code not in (0, NOTHING):
            print(f"---- process {index}\n{text[-6000:]}")
        else:
            print(f"process {index}: {(text.strip().splitlines() or [''])[-1]}")
    said = ", ".join(f"{n} {word}" for word, n in totals(texts).items()) or "nothing to run"
    print(f"{said} in {time.monotonic() - begun_s:.0f} s, {args.processes} processes", flush=True)
    if all(code == NOTHING for code in codes):
        return NOTHING
    return 1 if any(code not in (0, NOTHING) for code in codes) else 0


if __name__ == "__main__":
    sys.exit(main())
