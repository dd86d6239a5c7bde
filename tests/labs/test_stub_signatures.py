"""The labs' notebooks as files: first cell, stubs, checks, Markdown, nothing of a later lab."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from infero.lab import bootstrap, cells, pieces, swap, triton_cells
from tests.labs import notebooks
from tests.labs.notebooks import LABS, name_of

labs = pytest.mark.parametrize("path", LABS, ids=name_of)
PAIRS = [
    (path, exercise) for path in LABS for exercise in notebooks.exercises(notebooks.read(path))
]
each_exercise = pytest.mark.parametrize(
    ("path", "exercise"), PAIRS, ids=[exercise.piece.name for _, exercise in PAIRS]
)


def repository_url() -> str | None:
    """`repository.url` of `_config.yml`: the one place that names the repository."""
    config = yaml.safe_load((notebooks.ROOT / "_config.yml").read_text(encoding="utf-8"))
    return (config.get("repository") or {}).get("url")


def test_every_lab_of_the_table_is_there() -> None:
    assert [path.stem for path in LABS] == [row.stem for row in pieces.LABS]


@labs
def test_file(path: Path) -> None:
    notebook = notebooks.read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebooks.code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert "input(" not in cell.source


@labs
def test_first_cell(path: Path) -> None:
    first = notebooks.code_cells(notebooks.read(path))[0]
    assert first.source == bootstrap.cell(notebooks.number_of(path), repository_url())


@labs
def test_every_exercise_is_there_once_and_in_order(path: Path) -> None:
    found = [exercise.piece for exercise in notebooks.exercises(notebooks.read(path))]
    assert found == pieces.of_lab(notebooks.number_of(path))


@each_exercise
def test_stub(path: Path, exercise: notebooks.Exercise) -> None:
    piece, stub = exercise.piece, exercise.stub
    reference = swap.reference(piece.name)
    theirs = ast.parse(inspect.getsource(reference)).body[0]
    assert isinstance(theirs, ast.FunctionDef)
    assert exercise.cell.source.startswith(f"#| exercise: {piece.name}\n")
    assert ast.get_docstring(stub) == inspect.getdoc(reference)
    assert signature(stub) == signature(theirs)
    given = [ast.unparse(a.annotation) for a in arguments(stub) if a.annotation is not None]
    if given:
        wanted = [ast.unparse(a.annotation) for a in arguments(theirs) if a.annotation is not None]
        assert given == wanted
    last = stub.body[-1]
    assert ast.unparse(last) == f"raise NotImplementedError({piece.label!r})"


@each_exercise
def test_the_answer_is_short(path: Path, exercise: notebooks.Exercise) -> None:
    """15 lines at most that the stub does not have already, a kernel's lines counted too."""
    reference = swap.reference(exercise.piece.name)
    text = triton_cells.source_of(reference, notebooks.others(exercise.piece))
    given = set(code_lines(exercise.tree)) if "@triton.jit" in text else set()
    lines = [line for line in code_lines(ast.parse(text)) if line not in given]
    assert len(lines) <= 15, "\n".join(lines)


def code_lines(tree: ast.Module) -> list[str]:
    """The lines of every function's body, without docstrings, as typed in the least space."""
    found = []
    for function in tree.body:
        if isinstance(function, ast.FunctionDef):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            for node in body:
                found += ast.unparse(node).splitlines()
    return found


@each_exercise
def test_the_next_cell_checks(path: Path, exercise: notebooks.Exercise) -> None:
    following = notebooks.code_cells(notebooks.read(path))[exercise.index + 1]
    assert f"lab.check({exercise.piece.attribute})" in following.source
    assert cells.exercise_of(following.source) is None


@each_exercise
def test_the_stub_stands_alone(path: Path, exercise: notebooks.Exercise) -> None:
    """As it stands the cell is friendly: the one complaint is that it is not written yet."""
    from infero.lab import examine

    mistake = examine.text(exercise.piece, exercise.cell.source).mistake
    assert mistake is not None
    assert mistake.key == "unfinished", mistake.words


GIVEN = {"infero.cache.contiguous.next_batch"}  # serves labs 1 to 6 until lab 7 has it written


@labs
def test_no_piece_of_a_later_lab(path: Path) -> None:
    later = {p.attribute: p for p in pieces.PIECES
             if p.lab > notebooks.number_of(path) and p.name not in GIVEN}  # fmt: skip
    modules = {p.module.rpartition(".")[2] for p in later.values()}
    for cell in notebooks.code_cells(notebooks.read(path)):
        for node in ast.walk(ast.parse(plain(cell.source))):
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not names & {p.name for p in later.values()}
            if isinstance(node, ast.Attribute) and node.attr in later:
                assert ast.unparse(node.value).rpartition(".")[2] not in modules, ast.unparse(node)


MYST = {
    "a directive": re.compile(r"^\s*(```|~~~|:::)+\s*\{", re.MULTILINE),
    "a role": re.compile(r"(?<!`)\{[a-z][\w:-]*\}`"),
    "a label": re.compile(r"^\([\w-]+\)=\s*$", re.MULTILINE),
    "a comment": re.compile(r"^%\s", re.MULTILINE),
    "a colon fence": re.compile(r"^:::", re.MULTILINE),
    "a footnote": re.compile(r"\[\^\w+\]"),
    "front matter": re.compile(r"\A---\s*$", re.MULTILINE),
    "a substitution": re.compile(r"\{\{.*?\}\}"),
}


@labs
def test_markdown_is_commonmark(path: Path) -> None:
    """Maths and <details> apart: MyST would show raw in JupyterLab and Colab."""
    for cell in notebooks.read(path).cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(
            r"`+[^`]*`+(?!\{)", "", re.sub(r"```\w*\n.*?```", "", cell.source, flags=re.S)
        )
        for what, pattern in MYST.items():
            source = text if what in ("a substitution", "a comment", "a footnote") else cell.source
            assert not pattern.search(source), f"{what}: {pattern.search(source)}"
        assert cell.source.count("<details") == cell.source.count("</details>")


@labs
def test_what_a_lab_must_have(path: Path) -> None:
    code = "\n".join(plain(cell.source) for cell in notebooks.code_cells(notebooks.read(path)))
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "lab"
    }
    assert {"start", "check", "predict", "measure", "reconcile", "finish"} <= called
    text = "".join(
        cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown"
    )
    assert "<details" in text, "a graded hint"


def signature(node: ast.FunctionDef) -> str:
    """Arguments with their kinds and defaults, without annotations."""
    copy = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(copy, ast.FunctionDef)
    for argument in arguments(copy):
        argument.annotation = None
    return ast.unparse(copy.args)


def arguments(node: ast.FunctionDef) -> list[ast.arg]:
    found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return found + [a for a in (node.args.vararg, node.args.kwarg) if a is not None]


def plain(source: str) -> str:
    """A cell without IPython's magics."""
    return "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in source.splitlines())
