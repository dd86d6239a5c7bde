"""What each lab costs with its exercises solved: time, peak memory, download. Labs show it first.

    python -m benchmarks.labs [--runs 3] [--labs 04 05] [--smoke] [--out DIR]

Each run is a notebook executed in solution mode in a fresh process, kernel start included. Memory
is the largest resident size of the kernel. Chapter 3 explains the medians. With --labs the values
of the other labs are taken over as they were recorded on this machine, and say when.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infero import provenance, results
from infero.lab import pieces
from infero.loading import source

ROOT = Path(__file__).resolve().parent.parent
RUN = """
import json, resource, sys, time
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
begin = time.perf_counter()
nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seconds": seconds, "bytes": peak * (1 if sys.platform == "darwin" else 1024)}))
"""


def run_once(path: Path) -> tuple[float, float]:
    """(seconds, peak bytes) of one execution of a notebook with the reference in its cells."""
    environ = os.environ | {"INFERO_LAB": "solutions", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT),
                            "OMP_WAIT_POLICY": "PASSIVE"}  # as `make lab` sets it
    environ.pop("INFERO_MINE", None)
    done = subprocess.run([sys.executable, "-c", RUN, str(path)], cwd=path.parent, env=environ,
                          check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{path.name} does not run in solution mode:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return float(said["seconds"]), float(said["bytes"])


def take_over(r: results.Recorder, number: str) -> None:
    """The recorded values of a lab, with the day on which they were measured."""
    key = f"{provenance.device_info('cpu')['slug']}/labs"
    for what in ("time", "memory", "download"):
        kept = results.get(f"{key}/lab{number}_{what}")
        note = kept.note
        if ", measured " not in note:
            note = f"{note}, measured {kept.date[:10]}"
        r.value(f"lab{number}_{what}", kept.value, unit=kept.unit, n=kept.n, note=note)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labs",
                                     description="What each lab costs with its exercises solved.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each lab (default 3)")
    parser.add_argument("--labs", nargs="+", choices=[row.number for row in pieces.LABS],
                        help="only these; the others keep their recorded values")
    parser.add_argument("--smoke", action="store_true", help="the first lab once")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    rows = pieces.LABS[:1] if args.smoke else pieces.LABS
    with results.record("labs", argv=argv, out=args.out, device="cpu") as r:
        for row in rows:
            if args.labs and row.number not in args.labs:
                take_over(r, row.number)
                continue
            path = ROOT / "labs" / f"{row.stem}.ipynb"
            if not args.smoke:
                run_once(path)  # fills the caches of weights and fonts
            taken = [run_once(path) for _ in range(1 if args.smoke else args.runs)]
            r.value(f"lab{row.number}_time", [t for t, _ in taken], unit="s",
                    note="solution mode, kernel start included")
            r.value(f"lab{row.number}_memory", max(m for _, m in taken), unit="byte",
                    n=len(taken), note="largest resident size of the kernel")
            r.value(f"lab{row.number}_download", source.default_file().stat().st_size, unit="byte",
                    note="the model, once for all labs; nothing where make has installed it")
            print(f"lab {row.number}: {taken}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
