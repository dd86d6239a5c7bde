"""`{piece}`: the engine's code in a chapter is the engine's code, cut out of infero/ at build.

    ```{piece} infero.model.rms_norm
    ```

The docstring is cut to its first line (`:docstring: full` keeps it, `:docstring: none` drops it).
A function that a lab has the reader write is folded behind "do Lab 1, exercise 1 first", and so are
the Triton kernels that it launches.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from infero_book import problems

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Source:
    """One object's code: its file (relative to the repository), its lines, its text as shown."""

    path: str
    first: int
    last: int
    code: str


def source(name: str, docstring: str = "first", root: Path = ROOT) -> Source:
    """The code of `infero.module.object` (or `.Class.method`), read without importing it."""
    path, parts = _module(name, root)
    text = path.read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in parts:
        node = _member(node, part, name, path)
    lines = text.splitlines()
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    kept = lines[first - 1 : node.end_lineno]
    kept = _trimmed(node, kept, first, docstring)
    indent = len(kept[0]) - len(kept[0].lstrip())
    code = "\n".join(line[indent:] if line.strip() else "" for line in kept)
    return Source(path.relative_to(root).as_posix(), first, node.end_lineno, code)


def _module(name: str, root: Path) -> tuple[Path, list[str]]:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        stem = root.joinpath(*parts[:length])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file() and length < len(parts):
                return path, parts[length:]
    raise LookupError(f"no module of infero/ holds {name!r}")


def _member(tree: Any, part: str, name: str, path: Path) -> Any:
    for child in tree.body:
        if getattr(child, "name", None) == part:
            return child
        targets = getattr(child, "targets", [getattr(child, "target", None)])
        if any(isinstance(t, ast.Name) and t.id == part for t in targets):
            return child
    raise LookupError(f"{path.name} has no {part!r} (asked for {name!r})")


def _trimmed(node: Any, lines: list[str], first: int, docstring: str) -> list[str]:
    body = getattr(node, "body", [])
    has = isinstance(body, list) and body and isinstance(body[0], ast.Expr)
    if docstring == "full" or not has or not isinstance(body[0].value, ast.Constant):
        return lines
    if not isinstance(body[0].value.value, str):
        return lines
    start, end = body[0].lineno - first, body[0].end_lineno - first + 1
    after = lines[end:]
    while len(after) > 1 and not after[0].strip():
        after = after[1:]
    summary = body[0].value.value.strip().splitlines()[0].rstrip()
    indent = " " * body[0].col_offset
    if docstring == "none" and len(body) > 1:
        return lines[:start] + after
    return [*lines[:start], f'{indent}"""{summary}"""', *after]


def table() -> dict[str, Any]:
    """Dotted name -> row of the table of pieces."""
    from infero.lab.pieces import PIECES

    return {piece.name: piece for piece in PIECES}


def kernels(name: str, root: Path = ROOT) -> list[str]:
    """Dotted names of the `@triton.jit` functions that a function of infero/ uses, in order."""
    path, _ = _module(name, root)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    found: set[str] = set()
    waiting = [name.rpartition(".")[2]]
    while waiting:
        node = functions.get(waiting.pop())
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node else set()
        new = {u for u in used - found if u in functions and any(
            ast.unparse(d).startswith("triton.jit") for d in functions[u].decorator_list)}
        found |= new
        waiting += new
    module = name.rpartition(".")[0]
    return [f"{module}.{each}" for each in functions if each in found]


def owner(name: str) -> Any:
    """The piece whose kernel `name` is, or None."""
    module = name.rpartition(".")[0]
    pieces = [row for row in table().values() if row.module == module]
    return next((row for row in pieces if name in kernels(row.name)), None)


class Details(nodes.General, nodes.Element):
    """A folded part of the page; its first child is the summary."""


class Summary(nodes.General, nodes.TextElement):
    """The line that opens a folded part."""


class PieceDirective(SphinxDirective):
    required_arguments = 1
    option_spec = {
        "docstring": lambda text: directives.choice(text, ("first", "none", "full")),
        "open": directives.flag,
        "name": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            found = source(name, self.options.get("docstring", "first"))
        except (LookupError, SyntaxError) as error:
            mark = problems.report(self.env, f"piece {name!r}: {error}", self.lineno)
            return [nodes.paragraph("", "", mark)]
        self.env.note_dependency(str(ROOT / found.path))
        block = code_block(self, name, found)
        row = table().get(name) or owner(name)
        if row is None or "open" in self.options:
            return [block]
        return [folded(f"{name.rpartition('.')[2]}: do {row.label} first, then open", [block])]


def code_block(directive: SphinxDirective, name: str, found: Source) -> nodes.container:
    """The highlighted code under a caption that links to the whole file."""
    literal = nodes.literal_block(found.code, found.code, language="python")
    literal["classes"] += ["infero-code"]
    directive.set_source_info(literal)
    caption = nodes.paragraph(classes=["infero-piece-caption"])
    caption += nodes.literal("", name)
    caption += nodes.Text(" in ")
    link = SourceLink("", found.path, path=found.path, first=found.first, last=found.last)
    caption += link
    box = nodes.container("", caption, literal, classes=["infero-piece"])
    directive.add_name(box)
    modules = getattr(directive.env, "infero_sources", set())
    modules.add(found.path)
    directive.env.infero_sources = modules  # type: ignore[attr-defined]
    return box


def folded(summary: str, children: list[nodes.Node]) -> Details:
    """`children` behind a line that opens them."""
    node = Details(classes=["infero-fold"])
    node += Summary("", summary)
    node += children
    return node


class SourceLink(nodes.General, nodes.TextElement):
    """The link from quoted code to its file; made at writing, when the page's place is known."""


def _visit_details(self: Any, node: nodes.Element) -> None:
    self.body.append(self.starttag(node, "details"))


def _depart_details(self: Any, node: nodes.Element) -> None:
    self.body.append("</details>\n")


def _visit_summary(self: Any, node: nodes.Element) -> None:
    self.body.append(self.starttag(node, "summary", ""))


def _depart_summary(self: Any, node: nodes.Element) -> None:
    self.body.append("</summary>\n")


def _visit_link(self: Any, node: nodes.Element) -> None:
    from infero_book.pages import source_url

    url = source_url(self.builder, node["path"], node["first"], node["last"])
    self.body.append(self.starttag(node, "a", "", href=url, CLASS="infero-source"))


def _depart_link(self: Any, node: nodes.Element) -> None:
    self.body.append("</a>")


def _pass(self: Any, node: nodes.Element) -> None:
    pass


def setup(app: Sphinx) -> None:
    app.add_directive("piece", PieceDirective)
    other = {"latex": (_pass, _pass), "text": (_pass, _pass)}
    app.add_node(Details, html=(_visit_details, _depart_details), **other)
    app.add_node(Summary, html=(_visit_summary, _depart_summary), **other)
    app.add_node(SourceLink, html=(_visit_link, _depart_link), **other)
