"""A lab as handed out: Run All ends, each check has failed in friendly words, nothing swapped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.labs import notebooks

STATE = """\
import json
from infero.lab import swap
print(json.dumps(sorted(swap._installed)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks.LABS, ids=notebooks.name_of)
def test_unsolved(path: Path, tmp_path: Path) -> None:
    notebook = notebooks.read(path)
    found = notebooks.exercises(notebook)
    assert found
    state = notebooks.add_cell(notebook, STATE)
    notebooks.run(notebook, "learn", tmp_path)
    code = notebooks.code_cells(notebook)
    for exercise in found:
        said = notebooks.text_of(code[exercise.index + 1])
        assert f"Not written yet: {exercise.piece.label}: {exercise.piece.attribute}" in said
        assert "Traceback" not in said
        assert "the engine runs its own" in said
    assert json.loads(notebooks.text_of(state)) == []
    assert not list(tmp_path.glob("my_infero/**/*.py"))
