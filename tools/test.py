"""Runs every test, stage by stage: `make test`.

    .venv/bin/python tools/test.py [STAGE …]     # unit labs labs-avx2 site browser

A failing stage does not stop the others, so that one run tells everything; the last line sums up.
In CI (CI=true) the labs run a second time with AVX-512 switched off, and a missing browser is a
failure; elsewhere the browser stage is then left out with one line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "_build" / "test"
NO_TESTS = 5  # pytest's exit status when it found none


@dataclass
class Outcome:
    """What became of one stage."""

    stage: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    words: str = ""


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def pytest(stage: str, *args: str, **environ: str) -> Outcome:
    """Run pytest on its own and count what it says in its JUnit report."""
    report = REPORTS / f"{stage}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *args]
    code = subprocess.run(
        command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, env=os.environ | environ
    ).returncode
    outcome = Outcome(stage)
    if report.is_file():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            outcome.failed += bad
            outcome.skipped += skipped
            outcome.passed += int(suite.get("tests", 0)) - bad - skipped
    if code == NO_TESTS:
        outcome.words = "no tests"
    elif code != 0 and outcome.failed == 0:
        outcome.failed, outcome.words = 1, f"pytest ended with status {code}"
    return outcome


def unit() -> Outcome:
    return pytest("unit", "-m", "not browser and not gpu", "tests", INFERO_LAB="learn")


def labs(stage: str = "labs", **environ: str) -> Outcome:
    """Every lab from its first cell to its last, with the reference in the exercise cells."""
    if not list((ROOT / "labs").glob("*.ipynb")):
        return Outcome(stage, words="no labs")
    return pytest(
        stage,
        "--nbval-lax",
        "--nbval-cell-timeout=300",
        "labs",
        INFERO_LAB="solutions",
        MPLBACKEND="agg",
        **environ,
    )


def labs_avx2() -> Outcome:
    return labs("labs-avx2", ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2")


def site() -> Outcome:
    code = subprocess.run(
        [sys.executable, "tools/site.py", "build"], cwd=ROOT, check=False
    ).returncode
    return Outcome("site", passed=int(code == 0), failed=int(code != 0))


def browser() -> Outcome:
    if not (ROOT / "_build" / "site.state").is_file():
        print("Browser tests left out: the site is not built.", flush=True)
        return Outcome("browser", failed=1, words="no site: run the stage `site` first")
    found = subprocess.run(
        [sys.executable, "tools/setup.py", "chromium"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    path = found.stdout.strip()
    if found.returncode != 0 or not path:
        words = (found.stderr.strip().splitlines() or ["no browser"])[-1]
        print(f"Browser tests left out: {words}", flush=True)
        return Outcome("browser", failed=int(in_ci()), words="no browser")
    return pytest(
        "browser", "-m", "browser", "tests/book", INFERO_CHROMIUM=path, INFERO_REQUIRE_SITE="1"
    )


STAGES = {"unit": unit, "labs": labs, "labs-avx2": labs_avx2, "site": site, "browser": browser}


def main(argv: list[str]) -> int:
    unknown = [name for name in argv if name not in STAGES]
    if unknown:
        print(
            f"There is no stage {unknown[0]!r}; the stages are {', '.join(STAGES)}.",
            file=sys.stderr,
        )
        return 2
    chosen = argv or [name for name in STAGES if name != "labs-avx2" or in_ci()]
    REPORTS.mkdir(parents=True, exist_ok=True)
    os.environ.pop("INFERO_MINE", None)
    # Threads that spin while they wait make a machine that does anything else many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    outcomes = []
    for name in chosen:
        print(f"\n== {name} ==", flush=True)
        begin_s = time.monotonic()
        outcome = STAGES[name]()
        outcome.seconds = time.monotonic() - begin_s
        outcomes.append(outcome)
    print("\nstage       passed  failed  skipped  seconds")
    for o in outcomes:
        row = f"{o.stage:<10}{o.passed:>8}{o.failed:>8}{o.skipped:>9}{o.seconds:>9.0f}  {o.words}"
        print(row.rstrip())
    failed = sum(o.failed for o in outcomes)
    if failed:
        bad = " ".join(o.stage for o in outcomes if o.failed)
        print(f"\nTo run only what failed: .venv/bin/python tools/test.py {bad}")
    passed, skipped = (sum(getattr(o, kind) for o in outcomes) for kind in ("passed", "skipped"))
    words = f"{passed} passed, {failed} failed, {skipped} skipped"
    (REPORTS / "summary.txt").write_text(words + "\n", encoding="utf-8")
    print(f"\n{words}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
