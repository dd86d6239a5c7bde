"""What must hold of the repository itself: sizes, outputs, evidence, the wheel, cheap imports."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from infero import results

ROOT = Path(__file__).resolve().parent.parent
MiB = 2**20
BINARY = {".woff2", ".woff", ".png", ".jpg", ".gz", ".ico", ".gguf", ".safetensors", ".pdf"}
TRAINED = ("infero/data/student/",)  # models trained here; 8 MiB together
VENDORED = ("book/_static/mathjax/", "book/_static/vendor/", "book/_static/fonts/")


@functools.cache
def tracked() -> tuple[str, ...]:
    """Files that git tracks and that are there; the test is skipped outside a clone."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True,
                              text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone")
    return tuple(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def own_text() -> list[tuple[str, str]]:
    """(name, text) of every tracked text file that was written here."""
    names = [n for n in tracked() if Path(n).suffix not in BINARY and not n.startswith(VENDORED)]
    return [(name, (ROOT / name).read_text(encoding="utf-8")) for name in names]


def test_no_tracked_file_is_large_and_the_tree_is_small() -> None:
    every = {name: (ROOT / name).stat().st_size for name in tracked()}
    trained = {n: s for n, s in every.items() if n.startswith(TRAINED)}
    assert sum(trained.values()) < 8 * MiB, f"the trained models take over 8 MiB: {trained}"
    sizes = {n: s for n, s in every.items() if n not in trained}
    large = {n: s for n, s in sizes.items() if s > (2 * MiB if n.startswith(VENDORED) else MiB)}
    assert not large, f"over 1 MiB: {large}"
    assert sum(sizes.values()) < 12 * MiB, "the tracked tree is over 12 MiB: see the largest files"


def test_generated_files_are_not_tracked() -> None:
    bad = re.compile(r"(^|/)(__pycache__|_build|my_infero|\.venv|\.ipynb_checkpoints)/|\.pyc$")
    assert [name for name in tracked() if bad.search(name)] == []


def test_notebooks_hold_no_outputs() -> None:
    for name in tracked():
        if name.endswith(".ipynb"):
            for cell in json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]:
                if cell["cell_type"] == "code":
                    assert not cell["outputs"], f"{name} holds outputs: clear them, save again"
                    assert cell["execution_count"] is None, f"{name} holds execution counts"


def test_each_lab_has_its_chapter() -> None:
    for name in tracked():
        if re.fullmatch(r"labs/\d\d_\w+\.ipynb", name):
            chapter = ROOT / "book" / f"{Path(name).stem}.md"
            assert chapter.is_file(), f"{name} has no chapter {chapter.name}"


def test_modules_stay_short() -> None:
    """A module that a reader must hold in the head has about 400 lines at most."""
    for name in tracked():
        if name.startswith(("infero/", "benchmarks/", "tools/")) and name.endswith(".py"):
            lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
            assert lines <= 420, f"{name} has {lines} lines; split it where the reader would"


def test_modules_say_what_they_are_for() -> None:
    for name in tracked():
        if name.startswith("infero/") and name.endswith(".py"):
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not text.strip() or text.startswith('"""'), f"{name} does not say what for"


def test_no_path_of_one_machine() -> None:
    path = re.compile(r"(?<![\w/.])/(?:home|Users|root|work|mnt|opt)/[\w.-]+")
    found = [
        f"{name}: {hit.group(0)}"
        for name, text in own_text()
        if name != "tests/test_repository.py"
        for hit in path.finditer(text)
        if not hit.group(0).startswith(("/home/you", "/home/someone", "/Users/you"))
    ]
    assert found == []


def test_text_files_end_with_a_newline_and_hold_no_conflict() -> None:
    for name, text in own_text():
        assert not text or text.endswith("\n"), f"{name} does not end with a newline"
        assert "\n<<<<<<< " not in text, f"{name} holds a merge conflict"
        assert "\r" not in text or name.startswith("tests/"), f"{name} has carriage returns"


# ---------------------------------------------------------------- evidence


def result_files() -> list[Path]:
    return sorted((ROOT / "results").glob("*/*.json"))


@pytest.mark.parametrize("path", result_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_result_file(path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    results.validate(data, path.name)
    assert data["name"] == path.stem
    assert data["device"]["slug"] == path.parent.name
    words = shlex.split(data["command"])
    assert words[:2] == ["python", "-m"]
    assert words[2] == f"benchmarks.{path.stem}", "a file is named after its program"
    assert importlib.util.find_spec(words[2]), f"{words[2]} is recorded and does not exist"
    assert data["commit"] != "unknown", "measure from a clone, or set INFERO_COMMIT"


def test_results_hold_nothing_else() -> None:
    known = re.compile(r"README\.md|[a-z0-9-]+/\w+\.json|[a-z0-9-]+/traces/\w+\.json\.gz")
    for path in (ROOT / "results").rglob("*"):
        name = path.relative_to(ROOT / "results").as_posix()
        assert path.is_dir() or known.fullmatch(name), f"results/{name} is no measured file"


def test_every_step_of_make_gpu_is_a_program() -> None:
    from benchmarks import gpu

    names = [step.name for step in gpu.STEPS]
    assert len(names) == len(set(names))
    for step in gpu.STEPS:
        assert importlib.util.find_spec(step.module), f"{step.name}: no module {step.module}"
        assert step.minutes < 10


def test_every_benchmark_is_a_step_or_says_that_it_is_for_the_cpu() -> None:
    import benchmarks
    from benchmarks import gpu

    steps = {step.module for step in gpu.STEPS}
    for path in (ROOT / "benchmarks").glob("[a-z]*.py"):
        text = path.read_text(encoding="utf-8")
        if path.stem not in ("gpu",) and "results.record(" in text:
            cpu_only = path.stem in benchmarks.CPU_ONLY
            assert cpu_only or f"benchmarks.{path.stem}" in steps, f"{path.name} is no step"


# ---------------------------------------------------------------- the package


@functools.cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_core_depends_on_nothing_heavy() -> None:
    names = {re.split(r"[<>=!;\s\[]", line)[0].lower() for line in project()["dependencies"]}
    heavy = {"transformers", "jupyterlab", "pydantic", "fastapi", "triton", "pandas", "ipykernel"}
    assert not names & heavy
    assert not any("==" in line for line in project()["dependencies"]), "the core pins nothing"


def test_requirements_are_pinned_and_name_no_host() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+(; \w+ [=<>!]+ \"[\w.]+\")?", line), line
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names)
    core = {re.split(r"[<>=!;\s\[]", line)[0].lower() for line in project()["dependencies"]}
    assert core <= set(names), "requirements.txt lacks a dependency of the package"


def test_one_version_everywhere() -> None:
    import infero

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {infero.__version__}\n" in citation


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the tree without a network."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_carries_the_engine_and_the_results(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for name in tracked():
        if name.startswith("infero/"):
            assert name in names, f"the wheel lacks {name}"
    for path in result_files():
        assert f"infero/_data/results/{path.parent.name}/{path.name}" in names
    licences = {Path(name).name for name in names if "/licenses/" in name}
    assert {"LICENSE", "LICENSE-prose", "NOTICE"} <= licences
    assert not any(name.startswith(("tests/", "book/", "labs/")) for name in names)


def test_an_installed_wheel_reads_its_results(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    if not result_files():
        pytest.skip("nothing was measured yet")
    wheel.extractall(tmp_path)
    path = result_files()[0]
    key = f"{path.parent.name}/{path.stem}/@device"
    code = f"import infero.results as r; print(r.root()); print(r.get({key!r}).text)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "_data" in done.stdout
    assert json.loads(path.read_text(encoding="utf-8"))["device"]["name"] in done.stdout


def test_importing_infero_is_cheap() -> None:
    code = (
        "import time; t = time.perf_counter(); import infero; dt = time.perf_counter() - t\n"
        "import sys; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])\n"
        "print(dt < 0.5)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True,
                          text=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
