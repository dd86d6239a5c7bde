"""A lab's page is never yesterday's: real builds of a copy of the repository with a short lab 1.

One build takes some seconds, so the story is one test: it builds, it names whose output it shows,
it gets Colab buttons with a repository, and it fails when the reference is broken although no cell
of the notebook has changed, which is all that jupyter-cache looks at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
STEM = "01_from_prompt_to_token"
NOTEBOOK = ROOT / "labs" / f"{STEM}.ipynb"
TOC = f"""format: jb-book
root: book/glossary
parts:
  - caption: Labs
    chapters:
      - file: labs/{STEM}
"""
REPOSITORY = "\nrepository:\n  url: https://github.com/someone/book\n  branch: main\n"
BROKEN = """

_sound = rms_norm


def rms_norm(x, weight, eps):
    return _sound(x, weight, eps) * 1.01
"""


def short_lab() -> nbformat.NotebookNode:
    """The lab's title, its first cell, its first exercise and that exercise's check."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    exercise = next(i for i, cell in enumerate(code) if cell.source.startswith("#| exercise:"))
    imports = [cell for cell in code[1:exercise] if "import torch" in cell.source]
    notebook.cells = [notebook.cells[0], code[0], *imports, *code[exercise : exercise + 2]]
    return notebook


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("infero", "results", "book"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("_config.yml", "requirements.txt"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
    (folder / "_toc.yml").write_text(TOC)
    (folder / "labs").mkdir()
    nbformat.write(short_lab(), folder / "labs" / f"{STEM}.ipynb")
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
               "build", ".", "-W", "-n", "--keep-going"]  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if not k.startswith("INFERO_") or "MODEL" in k}
    return subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(not NOTEBOOK.is_file(), reason="lab 1 is not here")
def test_a_broken_reference_is_never_hidden(copy: Path) -> None:
    page = copy / "_build" / "html" / "labs" / f"{STEM}.html"
    engine = copy / "infero" / "model.py"
    sound = engine.read_text()

    first = build(copy)
    assert first.returncode == 0, first.stdout + first.stderr
    text = page.read_text()
    assert "the output below is the reference" in text
    folded = text[text.index('<details class="infero-fold') :]
    assert "The reference for Lab 1, exercise 1" in folded and "source/infero/model.html" in folded
    assert "colab" not in text.lower() and "github.com" not in text

    config = copy / "_config.yml"
    config.write_text(config.read_text() + REPOSITORY)
    named = build(copy)
    assert named.returncode == 0, named.stdout + named.stderr
    text = page.read_text()
    url = f"https://colab.research.google.com/github/someone/book/blob/main/labs/{STEM}.ipynb"
    assert text.count(url) >= 2  # the theme's launch button, and the bar under the title
    assert "https://github.com/someone/book/blob/main/infero/model.py#L" in text

    engine.write_text(sound + BROKEN)
    broken = build(copy)
    assert broken.returncode != 0, "the site was built over a broken reference"
    said = broken.stdout + broken.stderr
    assert STEM in said and "rms_norm" in said

    engine.write_text(sound)
    again = build(copy)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(list((copy / "_build" / "labs").iterdir())) <= 2  # old caches are removed
