"""The GPU's tests shared among processes: every test once, functions whole."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks import gpu_tests as g


def test_every_test_is_in_one_group_of_one_function() -> None:
    names = [f"a.py::test_{f}[{i}]" for f in range(9) for i in range(f + 1)] + ["b.py::test_x"]
    groups = g.groups_of(names)
    assert sorted(place for group in groups for place in group) == list(range(len(names)))
    assert max(map(len, groups)) <= g.GROUP
    for group in groups:
        assert len({names[place].partition("[")[0] for place in group}) == 1
    assert names[groups[0][0]].startswith("a.py::test_8")  # the largest function first


def test_processes_that_take_turns_share_everything(tmp_path: Path) -> None:
    names = [f"a.py::test_{f}[{i}]" for f in range(3) for i in range(7)]
    one, two = g.claimed(names, tmp_path), g.claimed(names, tmp_path)
    taken = [next(one), next(two), *one, *two]
    assert sorted(taken) == list(range(len(names)))
    assert list(g.claimed(names, tmp_path)) == []


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
    assert done.stdout.count("process ") >= 2
    (tmp_path / "test_some.py").write_text("def test_bad(): assert 1 == 2\n")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and "assert 1 == 2" in done.stdout
    (tmp_path / "test_some.py").write_text("x = 1\n")
    assert subprocess.run(command, cwd=root, capture_output=True).returncode == g.NOTHING


def test_when_time_is_up_it_says_how_far_it_came(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(
        "import time\n\ndef test_quick(): pass\n\ndef test_slow(): time.sleep(60)\n")
    root = Path(g.__file__).resolve().parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu_tests", "--processes", "1", "--", str(tmp_path),
         "--rootdir", str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True)
    time.sleep(6)
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 124
    assert "process 0 did not end" in out and "1 of them stopped" in out
