"""The GPU's tests shared among processes: every test once, functions whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_tests as g


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_test_is_run_once_and_functions_stay_whole(count: int) -> None:
    names = [f"a.py::test_{f}[{i}]" for f in range(9) for i in range(f + 1)] + ["b.py::test_x"]
    hands = [g.share(names, i, count) for i in range(count)]
    assert sorted(place for hand in hands for place in hand) == list(range(len(names)))
    most = -(-len(names) // count)
    assert max(map(len, hands)) <= 2 * most
    for f in range(9):
        places = {i for i, name in enumerate(names) if name.startswith(f"a.py::test_{f}[")}
        if len(places) <= most:
            assert sum(bool(places & hand) for hand in hands) == 1


def test_totals_are_summed() -> None:
    texts = ["...\n3 passed, 1 skipped, 9 deselected in 2.1s\n",
             "F\n2 failed, 4 passed, 1 warning in 3s", ""]
    assert g.totals(texts) == {"passed": 7, "skipped": 1, "failed": 2}


def test_two_processes_run_what_one_would(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.parametrize('i', range(5))\ndef test_good(i): assert i < 9\n\n"
        "def test_other(): pass\n")
    root = Path(g.__file__).resolve().parent.parent
    command = [sys.executable, "-m", "benchmarks.gpu_tests", "--processes", "2", "--",
               str(tmp_path), "--rootdir", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "6 passed in" in done.stdout and "2 processes" in done.stdout
    (tmp_path / "test_some.py").write_text("def test_bad(): assert 1 == 2\n")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and "assert 1 == 2" in done.stdout
    (tmp_path / "test_some.py").write_text("x = 1\n")
    assert subprocess.run(command, cwd=root, capture_output=True).returncode == g.NOTHING
