"""A lab with every stub solved: each check passes, each piece is saved, swapped in and called."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest

from infero.lab import swap, triton_cells
from tests.labs import notebooks

STATE = """\
import importlib, json
from infero.lab import configurations, pieces, swap

calls = {}
for piece in pieces.PIECES:
    if swap.installed(piece.name):
        module = importlib.import_module(piece.module)
        mine = getattr(module, piece.attribute)

        def counted(*args, _mine=mine, _name=piece.name, **kwargs):
            calls[_name] = calls.get(_name, 0) + 1
            return _mine(*args, **kwargs)

        setattr(module, piece.attribute, counted)
        configurations.CONFIGURATIONS[piece.configuration]()
        setattr(module, piece.attribute, mine)
print(json.dumps({"calls": calls, "files": {
    name: entry.function.__code__.co_filename for name, entry in swap._installed.items()
}}))
"""


def solution(exercise: notebooks.Exercise) -> str:
    """The exercise cell with the engine's own bodies in the place of the stub's.

    The function keeps the stub's signature and docstring; a kernel that the reference uses takes
    the whole place of the stub's kernel of the same name, or stands above the function.
    """
    stub, source = exercise.stub, exercise.cell.source.splitlines()
    reference = swap.reference(exercise.piece.name)
    function = ast.parse(inspect.getsource(reference)).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = inspect.getsource(reference).splitlines()[function.body[1].lineno - 1 :]
    first = min([stub.lineno, *(d.lineno for d in stub.decorator_list)])
    own = source[first - 1 : stub.body[0].end_lineno]  # up to the end of the docstring
    whole = triton_cells.source_of(reference, notebooks.others(exercise.piece))
    kernels = whole.removesuffix(inspect.getsource(reference)).splitlines()
    replaced = {n.name for n in ast.parse("\n".join(kernels)).body
                if isinstance(n, ast.FunctionDef)}
    above: list[str] = []
    at = 0
    for node in exercise.tree.body:
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
        if isinstance(node, ast.FunctionDef) and node.name in replaced:
            above += source[at:start]
            at = node.end_lineno or at
    return "\n".join([*above, *source[at : first - 1], *kernels, *own, *body])


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks.LABS, ids=notebooks.name_of)
def test_solved(path: Path, tmp_path: Path) -> None:
    notebook = notebooks.read(path)
    found = notebooks.exercises(notebook)
    for exercise in found:
        exercise.cell.source = solution(exercise)
    state = notebooks.add_cell(notebook, STATE)
    notebooks.run(notebook, "learn", tmp_path)
    code = notebooks.code_cells(notebook)
    for exercise in found:
        said = notebooks.text_of(code[exercise.index + 1])
        assert f"Passed: {exercise.piece.label}: {exercise.piece.attribute}" in said, said
    seen = json.loads(notebooks.text_of(state).splitlines()[-1])
    mine = tmp_path / "my_infero"
    for exercise in found:
        name = exercise.piece.name
        assert seen["calls"].get(name, 0) > 0, f"the engine never calls {name}"
        assert Path(seen["files"][name]).is_relative_to(mine), "it is the saved file that runs"
        assert f"# piece: {name} |" in Path(seen["files"][name]).read_text(encoding="utf-8")
    assert set(seen["files"]) == {exercise.piece.name for exercise in found}
    assert (mine / "measurements.json").exists(), "the learner's own numbers are kept"
