"""Labs without Jupyter: cells in order, exercises as imports, a stand-in for the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_labs as g

ROOT = Path(__file__).resolve().parent.parent


def notebook(path: Path, *sources: str) -> Path:
    cells = [{"cell_type": "markdown", "source": ["# Title"]}]
    cells += [{"cell_type": "code", "source": text.splitlines(keepends=True)} for text in sources]
    path.write_text(json.dumps({"cells": cells}))
    return path


def run(path: Path, *hidden: str) -> subprocess.CompletedProcess[str]:
    """Run a notebook in a process in which the modules `hidden` cannot be imported."""
    block = f"""
import sys

class Hidden:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
from benchmarks import gpu_labs
sys.exit(gpu_labs.main(["--one", {str(path)!r}]))
"""
    return subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"INFERO_LAB": "solutions", "MPLBACKEND": "agg"})


def test_cells_share_a_namespace_and_exercises_are_the_reference(tmp_path: Path) -> None:
    stub = ("#| exercise: infero.model.swiglu\ndef swiglu(gate, up):\n    "
            "raise NotImplementedError('Lab 1, exercise 4')\n")
    path = notebook(
        tmp_path / "01_x.ipynb",
        "%matplotlib inline\nimport torch\nimport infero.model\nx = 3",
        stub, "assert swiglu is infero.model.swiglu\ny = x + 4", "y",
        "from IPython.display import display\nimport inspect\ndef f():\n    return 'the source'\n"
        "print('the source' in inspect.getsource(f))")
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["7", "True", "cells 5"]


def test_without_ipython_cells_display_and_draw(tmp_path: Path) -> None:
    path = notebook(
        tmp_path / "03_x.ipynb", "from infero import lab\nimport matplotlib.pyplot as plt",
        "figure, ax = plt.subplots()\nax.plot([1, 2])\nplt.show()",
        "from IPython.display import display\ndisplay('shown')",
        "from infero.lab.render import Card\nCard('info', 'a title', ['words']).show()")
    hidden = ("IPython", "ipykernel", "nbformat", "nbclient", "nbval", "matplotlib_inline")
    done = run(path, *hidden)
    assert done.returncode == 0, done.stderr
    assert "shown" in done.stdout and "a title" in done.stdout and "cells 4" in done.stdout


def test_a_cell_that_raises_is_named(tmp_path: Path) -> None:
    done = run(notebook(tmp_path / "02_x.ipynb", "a = 1", "a / 0"))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr and "code cell 2 of 02_x.ipynb" in done.stderr


def test_the_results_say_which_labs_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(g, "path_of", lambda lab: notebook(
        tmp_path / f"{lab}_x.ipynb", "import infero.results as r\nprint(r.root())" if lab == "13"
        else "raise ValueError('broken')"))
    out = tmp_path / "out"
    assert g.main(["--labs", "13", "--device", "cpu", "--out", str(out)]) == 0
    assert g.main(["--labs", "13", "14", "--device", "cpu", "--out", str(out)]) == 1
    (path,) = out.glob("*/gpu_labs.json")
    values = json.loads(path.read_text())["values"]
    assert values["lab13_cells"]["value"] == 1 and values["lab13_time"]["value"] > 0
    assert "lab14_time" not in values and values["real_model"]["value"] in (0, 1)


def test_a_stand_in_for_the_model_loads_and_generates(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real shape is a thousand times larger than this test needs."""
    import infero
    from infero import bench_throughput, roofline
    from infero.sampling import SamplingParams
    from tests.conftest import tiny_config

    config = tiny_config(vocab_size=300, tie_embeddings=True)
    shape = roofline.ModelShape("x", "llama", 300, 48, 80, 3, 6, 2, 8, 128, True, False, "")
    monkeypatch.setattr(bench_throughput, "shape_config", lambda _: config)
    monkeypatch.setattr(roofline, "shape", lambda _: shape)
    llm = infero.LLM(str(g.stand_in(tmp_path / "model")), num_blocks=20, device="cpu")
    output = llm.generate("Hi", SamplingParams(max_tokens=3, ignore_eos=True))[0]
    assert len(output.tokens) == 3
    assert llm.encode("Hi") and llm.chat_prompt([{"role": "user", "content": "Hi"}])
