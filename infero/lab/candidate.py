"""From the text of an exercise cell to a function: the candidate.

The text goes into a real file under a fixed header of imports, those of the reference's own module,
and the file is imported. So tracebacks show the learner's lines, Triton finds its source, and a
name that only another cell of the notebook defines is found out here, before the engine would
miss it.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import itertools
import linecache
import symtable
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infero.lab import pieces, triton_cells
from infero.lab.checking import AnswerKeyCalled, Cell, Mistake
from infero.lab.pieces import Piece

_count = itertools.count(1)


@dataclass
class Candidate:
    """A learner's function, its text and the file it was imported from."""

    piece: Piece
    function: Callable[..., Any]
    cell: Cell


@cache
def _module_tree(module: str) -> ast.Module:
    path = importlib.import_module(module).__file__
    assert path is not None
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@cache
def module_imports(module: str) -> tuple[str, ...]:
    """The top-level imports of a module as lines, without those of pieces and of types only."""
    names = {piece.name for piece in pieces.PIECES}
    lines = []
    for node in _module_tree(module).body:
        if isinstance(node, ast.ImportFrom):
            if node.module == "__future__":
                continue
            if node.level:
                parent = module.rsplit(".", node.level)[0]
                node = ast.ImportFrom(f"{parent}.{node.module or ''}".rstrip("."), node.names, 0)
            node.names = [a for a in node.names if f"{node.module}.{a.name}" not in names]
            if node.names and node.module != "typing":
                lines.append(ast.unparse(node))
        elif isinstance(node, (ast.Import, ast.Try)):
            lines.append(ast.unparse(node))
    return tuple(lines)


@cache
def module_kernels(module: str) -> frozenset[str]:
    """Names of the kernels that the module itself defines."""
    tree = _module_tree(module)
    return frozenset(node.name for node in tree.body
                     if isinstance(node, ast.FunctionDef) and triton_cells.is_jit(node))


@cache
def module_names(module: str) -> frozenset[str]:
    """Public classes, functions and constants that the module itself defines.

    Pieces are left out, and so are kernels: they are half of the answer.
    """
    found = set()
    for node in _module_tree(module).body:
        if triton_cells.is_jit(node):
            continue
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
    own = {piece.attribute for piece in pieces.PIECES if piece.module == module}
    return frozenset(name for name in found - own if not name.startswith("_"))


def header(piece: Piece, text: str = "") -> str:
    """The imports above a candidate: fixed for its module, plus the module's names `text` uses."""
    lines = list(module_imports(piece.module))
    try:
        used = sorted(free_names(ast.parse(text)) & module_names(piece.module))
    except SyntaxError:
        used = []
    lines += [f"from {piece.module} import {name}" for name in used]
    return "\n".join(["from __future__ import annotations", "", *lines, ""])


# -- names ----------------------------------------------------------------------------------------


class _NoAnnotations(ast.NodeTransformer):
    """Annotations are never evaluated in a candidate, so their names do not count."""

    def _function(self, node: Any) -> Any:
        node.returns = None
        self.generic_visit(node)
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        target = node.target
        self.generic_visit(node)
        value = node.value if node.value is not None else ast.Constant(None)
        return ast.copy_location(ast.Assign([target], value), node)


def free_names(tree: ast.Module) -> set[str]:
    """Global names the code reads and does not define itself."""
    bare = ast.fix_missing_locations(_NoAnnotations().visit(ast.parse(ast.unparse(tree))))
    top = symtable.symtable(ast.unparse(bare), "cell", "exec")
    defined: set[str] = {
        s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()
    }
    read: set[str] = set()
    tables = [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            here = table is top or symbol.is_global()
            if here and symbol.is_referenced():
                read.add(symbol.get_name())
            if table is not top and symbol.is_declared_global() and symbol.is_assigned():
                defined.add(symbol.get_name())
    return {name for name in read - defined if not hasattr(builtins, name)} - {
        "__name__",
        "__file__",
    }


def _names_bound(text: str) -> set[str]:
    table = symtable.symtable(text, "header", "exec")
    return {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}


def _refuse_borrowed(piece: Piece, tree: ast.Module, top: str, where: str) -> None:
    borrowed = sorted(free_names(tree) - _names_bound(top))
    if not borrowed:
        return
    name = borrowed[0]
    owners = [p for p in pieces.PIECES if p.attribute == name]
    if owners:
        module = owners[0].module
        parent, _, last = module.rpartition(".")
        words = (
            f"`{name}` is another piece of the engine. Write `{last}.{name}(...)` and put "
            f"`from {parent} import {last}` into {where}, so that the engine's own is called."
        )
    elif name in module_kernels(piece.module):
        words = (
            f"`{name}` is not in {where}: kernel and function belong together in one cell. Write "
            f"the kernel there, under `@triton.jit`, above `{piece.attribute}`."
        )
    else:
        words = (
            f"`{name}` is defined in another cell; the engine will not have it. Put what makes "
            f"`{name}` (an import, a constant, a helper function) into {where}."
        )
    if len(borrowed) > 1:
        words += f" The same goes for {', '.join(f'`{other}`' for other in borrowed[1:])}."
    have = sorted(_names_bound(top) - {"annotations"})
    raise Mistake(words, "borrowed-name", [f"Already imported for you: {', '.join(have)}."])


# -- loading --------------------------------------------------------------------------------------


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="infero-lab-", ignore_cleanup_errors=True)


def load(piece: Piece, text: str) -> Candidate:
    """The candidate in the text of an exercise cell. Raises Mistake where there is none."""
    where = "the exercise cell"
    _parse(text, where)
    top = header(piece, text)
    number = next(_count)
    path = Path(_folder().name) / f"{piece.attribute}_{number}.py"
    source = top + "\n" + text
    path.write_text(source, encoding="utf-8")
    cell = Cell(path, top.count("\n") + 2, text)
    return _import(piece, source, cell, top)


def load_saved(piece: Piece, top: str, text: str, path: Path, first_line: int) -> Candidate:
    """The candidate in a section of a saved file: `text` starts at `first_line` of `path`."""
    where = path.name
    _parse(text, where)
    if not _parses(top):
        raise Mistake(f"Python cannot read the lines above the first piece of {where}.", "syntax")
    have = _names_bound(top)
    missing = [
        line
        for line in header(piece, text).splitlines()
        if line.startswith(("import ", "from "))
        and not _names_bound(line) <= have | {"annotations"}
    ]
    # Everything above the section is one padded header, so that line numbers stay true.
    head = top.rstrip("\n") + ("\n" + "; ".join(missing) if missing else "")
    source = head + "\n" * max(1, first_line - 1 - head.count("\n")) + text
    return _import(piece, source, Cell(path, first_line, text, where), head)


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _parse(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        lines = text.splitlines()
        number = error.lineno or 1
        line = lines[number - 1].strip() if number <= len(lines) else ""
        if line.startswith(("%", "!")) or line.endswith("?"):
            words = (
                f"Line {number} of {where} is a command of the notebook and not Python:\n    "
                f"{line}\n"
                "Move it to a cell of its own."
            )
        else:
            words = f"Python cannot read line {number} of {where} ({error.msg}):\n    {line}"
        raise Mistake(words, "syntax") from error


def _import(piece: Piece, source: str, cell: Cell, top: str) -> Candidate:
    tree = ast.parse(cell.text)
    _refuse_answer_key(piece, tree)
    _refuse_borrowed(piece, tree, top, cell.where)
    triton_cells.refuse_host_code(tree, cell.where)
    name = f"infero_candidate_{next(_count)}"
    module = types.ModuleType(name)
    module.__file__ = str(cell.path)
    sys.modules[name] = module  # dataclasses and pickling look the module up by name
    linecache.checkcache(str(cell.path))
    try:
        code = compile(source, str(cell.path), "exec", dont_inherit=True)
        exec(code, module.__dict__)
        triton_cells.settle(module)
    except (Mistake, AnswerKeyCalled):
        raise
    except Exception as error:
        raise Mistake(_at_import(error, cell), "raises") from error
    function = module.__dict__.get(piece.attribute)
    if function is None:
        raise Mistake(
            f"{cell.where.capitalize()} defines no function called `{piece.attribute}`.",
            "no-function",
        )
    if not isinstance(function, types.FunctionType):
        raise Mistake(
            f"`{piece.attribute}` is a {type(function).__name__} in {cell.where}; a piece of the "
            f"engine is a plain function: `def {piece.attribute}(...)`.",
            "not-a-function",
        )
    return Candidate(piece, function, cell)


def _at_import(error: Exception, cell: Cell) -> str:
    trace = error.__traceback__
    place = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(cell.path):
            inside, line = cell.line(trace.tb_lineno)
            place = f" in line {inside} of {cell.where}:\n    {line}" if inside > 0 else ""
        trace = trace.tb_next
    return f"Running the cell stopped with an error{place}\n{type(error).__name__}: {error}"


def _refuse_answer_key(piece: Piece, tree: ast.Module) -> None:
    kernels = module_kernels(piece.module)
    last = piece.module.rpartition(".")[2]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in kernels
            and ast.unparse(node.value).rpartition(".")[2] == last
        ):
            raise Mistake(
                f"This calls the answer key: line {node.lineno} uses the reference's kernel "
                f"{node.attr}.",
                "answer-key",
            )
        if not isinstance(node, ast.ImportFrom) or node.module != piece.module:
            continue
        if any(a.name in (piece.attribute, "*") or a.name in kernels for a in node.names):
            raise Mistake(
                f"This calls the answer key: line {node.lineno} imports from {piece.module} "
                "what you are writing.",
                "answer-key",
            )


def check_signature(
    piece: Piece, function: Callable[..., Any], reference: Callable[..., Any]
) -> None:
    """Raise Mistake unless the candidate can be called as the engine calls the reference."""
    import inspect

    wanted = list(inspect.signature(reference).parameters.values())
    given = list(inspect.signature(function).parameters.values())
    same = len(given) >= len(wanted) and all(
        g.name == w.name and g.kind == w.kind and _same_default(g.default, w.default)
        for g, w in zip(given, wanted, strict=False)
    )
    if same and all(extra.default is not extra.empty for extra in given[len(wanted) :]):
        return

    def words(parameters: list[inspect.Parameter]) -> str:
        bare = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
        return f"{piece.attribute}{inspect.Signature(bare)}"

    raise Mistake(
        f"The engine calls `{words(wanted)}`; yours is `{words(given)}`. Keep the arguments of the "
        "exercise, their order and their defaults.",
        "signature",
    )


def _same_default(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except Exception:
        return False
