"""The GPU tests in several processes at once: compiling kernels takes most of their time.

    python -m benchmarks.gpu_tests [--processes 8] [-- PYTEST OPTIONS]

Each process collects tests/gpu and takes group after group of tests as it becomes free, the largest
functions first, so that all end at about the same time. A group is a few cases of one function: its
kernels are compiled once. A process's last line is printed when it ends; when time is up, what each
has done until then. The module is also the pytest plugin that does the sharing.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = max(1, min(8, (os.cpu_count() or 2) // 2))
COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|deselected|xfailed|warnings?)")
NOTHING = 5  # pytest's status when there was nothing to run
GROUP = 4  # cases of a function that one process takes at a time


def groups_of(names: Sequence[str]) -> list[list[int]]:
    """Places of the tests in groups of at most GROUP cases of one function.

    Groups of functions with many cases come first: those take longest.
    """
    functions: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        functions.setdefault(name.partition("[")[0], []).append(place)
    ordered = sorted(functions.values(), key=lambda places: (-len(places), places[0]))
    return [places[at : at + GROUP] for places in ordered for at in range(0, len(places), GROUP)]


def claimed(names: Sequence[str], folder: Path) -> Iterator[int]:
    """Places of the tests that this process takes, from a folder shared by all processes."""
    for number, group in enumerate(groups_of(names)):
        try:
            (folder / str(number)).touch(exist_ok=False)
        except FileExistsError:  # another process has it
            continue
        yield from group


def pytest_runtestloop(session: Any) -> bool | None:
    """pytest's hook: run what this process claims, looking one test ahead."""
    folder = os.environ.get("INFERO_SHARE")
    if not folder or session.config.option.collectonly:
        return None
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        raise session.Interrupted(f"{session.testsfailed} errors during collection")
    turns = claimed([item.nodeid for item in session.items], Path(folder))
    place = next(turns, None)
    while place is not None:
        following = next(turns, None)
        item = session.items[place]
        after = session.items[following] if following is not None else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        place = following
    return True


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
    begun_s = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))  # `timeout` says stop
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "claimed"
        shared.mkdir()
        environment["INFERO_SHARE"] = str(shared)
        logs = [Path(folder) / f"{index}.log" for index in range(args.processes)]
        command = [sys.executable, "-m", "pytest", "-q", "--durations", "3", "--color", "no",
                   "-p", "no:cacheprovider", "-p", "benchmarks.gpu_tests", *options]
        running: dict[int, subprocess.Popen[bytes]] = {}
        codes: dict[int, int] = {}
        try:
            for index, log in enumerate(logs):
                with log.open("w") as file:
                    running[index] = subprocess.Popen(command, cwd=ROOT, stdout=file,
                                                      stderr=subprocess.STDOUT, env=environment)
            while running:
                for index, process in list(running.items()):
                    if process.poll() is not None:
                        del running[index]
                        codes[index] = process.returncode
                        said(index, process.returncode, text_of(logs[index]))
                time.sleep(0.05)
        finally:
            for index, process in running.items():
                process.kill()
                process.wait()
                print(f"process {index} did not end:\n{text_of(logs[index])[-1500:]}", flush=True)
            words = ", ".join(f"{n} {word}" for word, n in totals(
                [text_of(logs[index]) for index in codes]).items()) or "nothing to run"
            print(f"{words} in {time.monotonic() - begun_s:.0f} s, {args.processes} processes, "
                  f"{len(running)} of them stopped", flush=True)
    if all(code == NOTHING for code in codes.values()):
        return NOTHING
    return 1 if any(code not in (0, NOTHING) for code in codes.values()) else 0


def text_of(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def said(index: int, code: int, text: str) -> None:
    """A process's last line, or all that a failing one has to say."""
    if code in (0, NOTHING):
        print(f"process {index}: {(text.strip().splitlines() or [''])[-1]}", flush=True)
    else:
        print(f"---- process {index}\n{text[-6000:]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
