"""Solution mode: every lab runs clean, quickly and small, with no network.

It is the documented command, `INFERO_LAB=solutions pytest --nbval-lax labs/`, a lab at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.labs import notebooks

#: a lab promises 40 s at most and under 3 GiB; a busy machine gets three times the time
LIMIT_S = 120.0
LIMIT_BYTES = 3 * 2**30


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks.LABS, ids=notebooks.name_of)
def test_solutions(path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, **notebooks.kernel_environment("solutions", tmp_path)}
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, "-m", "pytest", "--nbval-lax", str(path), "-q"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--color=no"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        env=environment,
        cwd=notebooks.ROOT,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert not (tmp_path / "my_infero").exists(), "nothing of the learner's is read or written"
    peak_bytes = int(done.stderr.splitlines()[-1])
    assert peak_bytes < LIMIT_BYTES, f"peak memory {peak_bytes / 2**30:.1f} GiB"
    assert seconds < LIMIT_S, f"{seconds:.0f} s"


#: run a command and print the largest resident set of any process under it, in bytes
_MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024), file=sys.stderr)
sys.exit(code)
"""
