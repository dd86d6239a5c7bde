"""Exercise cells under plain IPython and under a real kernel, in each mode."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infero.lab import cells, swap
from tests.labs import notebooks
from tests.labs.conftest import Shell

NORM = "infero.model.rms_norm"
STUB = f"""\
#| exercise: {NORM}
def rms_norm(x, weight, eps):
    raise NotImplementedError("Lab 1, exercise 1")
"""
RIGHT = f"""\
#| exercise: {NORM}
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
"""


@pytest.mark.parametrize(("text", "name"), [
    (STUB, NORM),
    ("\n# a comment first\n" + STUB, NORM),
    ("#|exercise: a.b\npass", "a.b"),
    ("x = 1\n#| exercise: a.b\n", None),
    ("# exercise: a.b\n", None),
    ("#| exercise:\n", None),
    ("", None),
    ("%%time\n#| exercise: a.b\n", None),
])  # fmt: skip
def test_marks(text: str, name: str | None) -> None:
    assert cells.exercise_of(text) == name


def test_other_cells_are_left_alone(set_mode: Callable[[str], None]) -> None:
    lines = ["x = 1\n", "y = 2"]
    for name in ("learn", "solutions", "grade"):
        set_mode(name)
        assert cells.transform(lines) == lines


def test_registered_once(shell: Shell) -> None:
    shell("from infero import lab")
    shell("import importlib; from infero.lab import cells; cells.register(); cells.register()")
    hooks = shell.ip.input_transformers_cleanup
    assert sum(hook.__module__ == "infero.lab.cells" for hook in hooks) == 1


def test_solutions(shell: Shell, set_mode: Callable[[str], None]) -> None:
    set_mode("solutions")
    shell(STUB)
    from infero import model

    assert shell.ip.user_ns["rms_norm"] is model.rms_norm
    assert "Passed" in shell("from infero import lab\nlab.check(rms_norm)")
    assert shell.error is None


def test_solutions_with_a_wrong_name(shell: Shell, set_mode: Callable[[str], None]) -> None:
    set_mode("solutions")
    shell(STUB.replace("rms_norm", "no_norm"))
    assert isinstance(shell.error, ImportError)


def test_learn_records_the_text(shell: Shell) -> None:
    shell(STUB)
    assert cells.recorded(NORM) == STUB
    assert shell.ip.user_ns["rms_norm"].__module__ == "__main__"
    shell(RIGHT)
    assert cells.recorded(NORM) == RIGHT


def test_plain_python_needs_no_ipython() -> None:
    code = (
        "import sys; from infero import lab; from infero.lab import pieces\n"
        "assert 'IPython' not in sys.modules and 'torch' not in sys.modules\n"
        "print(len(pieces.PIECES))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=notebooks.ROOT, check=True
    )
    assert int(out.stdout) >= 7


PROBE = (
    "from infero.lab import swap\nimport infero.model\n"
    "print(sorted(swap._installed), rms_norm is infero.model.rms_norm)"
)
START = "from infero import lab\nlab.start(1)"


@pytest.mark.parametrize(("mode", "cell", "said", "state"), [
    ("solutions", STUB, "Passed", "[] True"),
    ("learn", STUB, "Not written yet", "[] True"),
    ("learn", RIGHT, "Passed", f"['{NORM}'] True"),
    ("grade", RIGHT, "Passed", "[] False"),
])  # fmt: skip
def test_under_nbclient(mode: str, cell: str, said: str, state: str, tmp_path: Path) -> None:
    notebook = notebooks.small_notebook(START, cell, "lab.check(rms_norm)", PROBE)
    notebooks.run(notebook, mode, tmp_path)
    assert said in notebooks.text_of(notebook.cells[2])
    assert state in notebooks.text_of(notebook.cells[3])
    assert (tmp_path / "my_infero" / "model.py").exists() == (mode == "learn" and cell == RIGHT)


def test_a_failed_check_raises_in_grade_mode(tmp_path: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    notebook = notebooks.small_notebook(START, STUB, "lab.check(rms_norm)")
    with pytest.raises(CellExecutionError, match="Not written yet"):
        notebooks.run(notebook, "grade", tmp_path)
    assert not (tmp_path / "my_infero").exists()


def test_nothing_leaks_between_tests() -> None:
    assert not swap._installed
