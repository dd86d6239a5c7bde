"""Reading and running the labs' notebooks: what the tests of labs share."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from infero.lab import cells, pieces

ROOT = Path(__file__).resolve().parents[2]
LABS = sorted((ROOT / "labs").glob("[0-9][0-9]_*.ipynb"))

#: placed on the path of a kernel: any connection that leaves the machine is an error
NO_NETWORK = """\
import socket

_connect = socket.socket.connect


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = address[0]
        if host not in ("localhost", "::1") and not host.startswith("127."):
            raise OSError(f"a lab must not need the network, and this one asks for {host}")
    return _connect(self, address)


socket.socket.connect = connect
"""


def name_of(path: Path) -> str:
    return path.stem


def number_of(path: Path) -> str:
    return path.name[:2]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@dataclass
class Exercise:
    """An exercise cell of a notebook."""

    piece: pieces.Piece
    cell: Any
    index: int  # among the code cells

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.cell.source)

    @property
    def stub(self) -> ast.FunctionDef:
        found = [
            node
            for node in self.tree.body
            if isinstance(node, ast.FunctionDef) and node.name == self.piece.attribute
        ]
        assert len(found) == 1, f"one function called {self.piece.attribute} in its cell"
        return found[0]


def exercises(notebook: Any) -> list[Exercise]:
    """The exercise cells in order."""
    found = []
    for index, cell in enumerate(code_cells(notebook)):
        name = cells.exercise_of(cell.source)
        if name is not None:
            found.append(Exercise(pieces.find(name), cell, index))
    return found


def others(piece: pieces.Piece) -> frozenset[str]:
    """Names of the other pieces of a piece's module."""
    return frozenset(p.attribute for p in pieces.PIECES if p.module == piece.module) - {
        piece.attribute
    }


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def kernel_environment(mode: str, folder: Path) -> dict[str, str]:
    """The environment of a kernel that finds this checkout and no network; made in `folder`."""
    site = folder / "site"
    site.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    return {
        "INFERO_LAB": mode,
        "INFERO_MINE": str(folder / "my_infero"),
        "INFERO_PIECES": "",
        "PYTHONPATH": os.pathsep.join(
            [str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        # Threads that spin while they wait make a busy machine many times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MPLBACKEND": os.environ.get("MPLBACKEND", ""),
    }


def run(notebook: Any, mode: str, folder: Path, timeout_s: int = 300) -> Any:
    """Run all cells of a notebook in a kernel of its own, stopping at the first error."""
    from nbclient import NotebookClient

    environment = kernel_environment(mode, folder)
    if not environment["MPLBACKEND"]:
        del environment["MPLBACKEND"]
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "labs")}},
    )
    client.create_kernel_manager()
    assert client.km is not None
    client.km.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    with _environment(environment):
        client.execute()
    return notebook


def text_of(cell: Any) -> str:
    """What a cell printed, as plain text."""
    parts = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            parts.append(output.text)
        elif "data" in output:
            parts.append(output.data.get("text/plain", ""))
    return "\n".join(parts)


def add_cell(notebook: Any, source: str) -> Any:
    """Append a code cell and give it back."""
    cell = nbformat.v4.new_code_cell(source)
    notebook.cells.append(cell)
    return cell


def small_notebook(*sources: str) -> Any:
    """A notebook of these code cells."""
    made = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=made)
