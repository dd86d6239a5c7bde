"""nbval sees what nbclient sees: exercise cells run as the reference in solution mode.

The labs themselves go through nbval in a stage of `make test`, which is the documented command
`INFERO_LAB=solutions pytest --nbval-lax labs/`; here a small notebook does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.labs import notebooks
from tests.labs.test_transformer import PROBE, START, STUB


def nbval(path: Path, mode: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **notebooks.kernel_environment(mode, folder)}
    command = [sys.executable, "-m", "pytest", "--nbval-lax", str(path), "-q", "--color=no"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(("mode", "code"), [("solutions", 0), ("grade", 1)])
def test_under_nbval(mode: str, code: int, tmp_path: Path) -> None:
    path = tmp_path / "01_small.ipynb"
    check = "lab.check(rms_norm)"
    nbformat.write(notebooks.small_notebook(START, STUB, check, PROBE), path)
    done = nbval(path, mode, tmp_path)
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-1000:]
    assert ("CheckFailed" in done.stdout) == (mode == "grade")
    assert not (tmp_path / "my_infero").exists()
