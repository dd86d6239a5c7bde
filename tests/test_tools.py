"""The programs behind `make`: what they say when something is missing, and what they rewrite."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import gpu
from tools import lock, set_repo, setup, site
from tools import test as runner

ROOT = Path(__file__).resolve().parent.parent
URL = "https://github.com/acme/infero"


# ---------------------------------------------------------------- set-repo


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that name the repository, before it has a name."""
    for name in ("_config.yml", "CITATION.cff", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "labs").mkdir()
    for path in (ROOT / "labs").glob("*.ipynb"):
        shutil.copy(path, tmp_path / "labs" / path.name)
    set_repo.apply("", tmp_path)
    return tmp_path


def texts(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text("utf-8")
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def test_set_repo_names_it_everywhere_once_and_can_be_undone(copy: Path) -> None:
    import tomllib

    import nbformat
    import yaml

    before = texts(copy)
    changed = set_repo.apply(URL, copy)
    assert {"_config.yml", "CITATION.cff", "pyproject.toml", "README.md"} <= set(changed)
    assert set_repo.apply(URL, copy) == []
    config = yaml.safe_load((copy / "_config.yml").read_text("utf-8"))
    assert config["repository"] == {"url": URL, "branch": "main"}
    assert yaml.safe_load((copy / "CITATION.cff").read_text("utf-8"))["repository-code"] == URL
    project = tomllib.loads((copy / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["urls"]["Repository"] == URL
    assert project["scripts"] == {"infero": "infero.cli:main"}
    assert f"git clone {URL} && cd infero\nmake book" in (copy / "README.md").read_text("utf-8")
    for path in (copy / "labs").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert f"git+{URL}.git@v" in next(c for c in notebook.cells if c.cell_type == "code").source
    set_repo.apply("https://github.com/acme/other", copy)
    assert not any(URL in text for text in texts(copy).values())
    set_repo.apply("", copy)
    assert texts(copy) == before


@pytest.mark.parametrize(
    ("text", "url"),
    [(URL, URL), (f"{URL}.git", URL), (f"{URL}/", URL), ("none", ""),
     ("https://git.example.org/a/b/c", "https://git.example.org/a/b/c")],
)  # fmt: skip
def test_set_repo_takes(text: str, url: str) -> None:
    assert set_repo.checked(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "infero", "http://github.com/a/b", "https://github.com/a", "https://github.com/a/b/c",
     "git@github.com:a/b.git", "https://me@github.com/a/b", "https://github.com/a/b?x=1",
     "https://github.com/a/b#x", 'https://github.com/a/b"', "https://github.com/../b",
     "https://github.com/a/b c"],
)  # fmt: skip
def test_set_repo_refuses(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert set_repo.main([text]) == 1
    words = capsys.readouterr().err
    assert words.count("\n") == 1
    assert "make set-repo URL=https://github.com/OWNER/NAME" in words


# ---------------------------------------------------------------- environment


def python_sh(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run tools/python.sh seeing no programs but those of `folder`."""
    command = ["/bin/sh", str(ROOT / "tools" / "python.sh"), "-c", "print('ran')"]
    return subprocess.run(
        command, check=False, env={"PATH": str(folder)} | environ, capture_output=True, text=True
    )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with what python.sh itself calls."""
    for name in ("uname", "head"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    return tmp_path


def fake(folder: Path, name: str, words: str, status: int = 1) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {words}\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)


def test_no_python_is_one_line(programs: Path) -> None:
    done = python_sh(programs)
    assert done.returncode == 1
    assert done.stderr.startswith("Infero needs Python 3.11 or newer, and this machine has none: ")
    assert done.stderr.count("\n") == 1


def test_an_old_python_is_named(programs: Path) -> None:
    fake(programs, "python3", "Python 3.9.18")
    done = python_sh(programs)
    assert done.returncode == 1
    assert "this machine has Python 3.9.18" in done.stderr
    assert python_sh(programs, PYTHON="python3").stderr.startswith(
        "PYTHON=python3 is no Python 3.11"
    )


def test_a_python_that_fits_is_found_by_any_of_its_names(programs: Path) -> None:
    fake(programs, "python3", "Python 3.9.18")
    (programs / "python3.12").symlink_to(sys.executable)
    assert python_sh(programs).stdout == "ran\n"


def test_windows_is_sent_to_wsl(programs: Path) -> None:
    (programs / "uname").unlink()
    fake(programs, "uname", "MINGW64_NT-10.0", status=0)
    assert "WSL2" in python_sh(programs).stderr


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("WARNING: Retrying ... NewConnectionError('... Temporary failure in name resolution')\n"
         "ERROR: No matching distribution found for torch==2.13.0", "No network"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
         "The disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no torch==2.13.0 for Python"),
        ("ERROR: Could not install: [Errno 13] Permission denied: 'x'", "cannot be written"),
        ("error: metadata-generation-failed", r"metadata-generation-failed \(all of it"),
        ("", "pip failed"),
    ],
)  # fmt: skip
def test_pip_s_failures_become_one_line(output: str, words: str) -> None:
    import re

    line = setup.diagnosis(output)
    assert re.search(words, line)
    assert "\n" not in line


def test_little_space_stops_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: usage._replace(free=10**8))
    with pytest.raises(setup.Stop, match=r"0\.1 GB are free .* needs about 6 GB"):
        setup.require_space("cpu")


def test_an_unknown_action_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["setup.py", "everything"])
    assert setup.main() == 1
    assert "'everything'" in capsys.readouterr().err


def test_the_state_follows_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("a", encoding="utf-8")
    before = setup.state()
    assert setup.state() == before
    (tmp_path / "requirements.txt").write_text("b", encoding="utf-8")
    assert setup.state() != before


def test_the_lock_keeps_markers_and_drops_builds() -> None:
    found = lock.pinned([
        {"name": "torch", "version": "2.13.0+cpu"}, {"name": "triton", "version": "3.7.1"},
        {"name": "nvidia-cudnn-cu13", "version": "9"}, {"name": "Jinja2", "version": "3.1.6"},
        {"name": "sphinx_design", "version": "0.8.0"},
    ])  # fmt: skip
    assert found == {"torch": "torch==2.13.0", "jinja2": "jinja2==3.1.6",
                     "triton": 'triton==3.7.1; sys_platform == "linux"',
                     "sphinx-design": "sphinx-design==0.8.0"}  # fmt: skip


def test_the_lock_refuses_what_debian_s_python_cannot_run() -> None:
    late = lock.too_new([{"name": "a", "version": "1", "requires_python": ">=3.11.5"},
                         {"name": "b", "version": "1", "requires_python": ">=3.11"},
                         {"name": "c", "version": "1"}])  # fmt: skip
    assert late == ["a 1 (>=3.11.5)"]


# ---------------------------------------------------------------- site


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert site.main(["book", "--port", str(port)]) == 1
    words = capsys.readouterr().err
    assert words == f"Port {port} is in use: `make book PORT={port + 1}` takes another.\n"


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_number_that_is_no_port(port: int) -> None:
    assert "is no port" in site.port_taken(port)


def test_the_server_shows_pages_and_the_book_s_own_404(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functools import partial

    (tmp_path / "index.html").write_text("first page", encoding="utf-8")
    (tmp_path / "404.html").write_text("no such page", encoding="utf-8")
    monkeypatch.setattr(site, "HTML", tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(site.Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        assert urllib.request.urlopen(f"{base}/").read() == b"first page"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{base}/nowhere.html")
        assert (caught.value.code, caught.value.read()) == (404, b"no such page")
    finally:
        server.shutdown()
        server.server_close()


def test_a_second_build_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site, "HTML", tmp_path / "html")
    monkeypatch.setattr(site, "STAMP", tmp_path / "site.state")
    calls = []

    def build(*command: object, **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (tmp_path / "html").mkdir(exist_ok=True)
        (tmp_path / "html" / "index.html").write_text("page", encoding="utf-8")
        return _done()

    monkeypatch.setattr(site.subprocess, "run", build)
    monkeypatch.setattr(site, "state", lambda: "one")
    assert site.build() == 0
    assert len(calls) == 2  # jupyter-book, and the check of what it made
    assert site.build() == 0
    assert len(calls) == 2
    assert "up to date" in capsys.readouterr().out
    monkeypatch.setattr(site, "state", lambda: "two")
    assert site.build() == 0
    assert len(calls) == 4


def test_a_failed_build_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "STAMP", tmp_path / "site.state")
    monkeypatch.setattr(site, "HTML", tmp_path / "html")
    (tmp_path / "html").mkdir()
    (tmp_path / "site.state").write_text("old", encoding="utf-8")
    monkeypatch.setattr(site, "state", lambda: "new")
    monkeypatch.setattr(site.subprocess, "run", lambda *a, **k: _done(1))
    assert site.build() == 1
    assert not (tmp_path / "site.state").exists()
    # The theme leaves a logo where the folder _static belongs when a build fails early.
    (tmp_path / "html" / "_static").write_text("a logo", encoding="utf-8")
    assert site.build() == 1
    assert not (tmp_path / "html" / "_static").exists()


def _done(code: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, "", "")


def test_the_site_depends_on_the_engine_and_not_on_the_tests() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in site.inputs()}
    assert {"infero/model.py", "_config.yml", "requirements.txt"} <= names
    assert not any(name.startswith(("tests/", ".github/", "_build/")) for name in names)


# ---------------------------------------------------------------- the test runner


def test_the_runner_counts_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "REPORTS", tmp_path)
    monkeypatch.setattr(runner, "STAGES", {
        "unit": lambda: runner.Outcome("unit", passed=3, skipped=1),
        "site": lambda: runner.Outcome("site", failed=1),
    })  # fmt: skip
    assert runner.main([]) == 1
    out = capsys.readouterr().out
    assert out.endswith("\n3 passed, 1 failed, 1 skipped\n")
    assert "tools/test.py site" in out
    assert runner.main(["unit"]) == 0
    assert runner.main(["nothing"]) == 2


def test_the_runner_reads_pytest_s_own_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "REPORTS", tmp_path)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    (tmp_path / "test_x.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n"
        "def test_c(): pytest.skip('no')\n",
        encoding="utf-8",
    )
    outcome = runner.pytest("unit", "test_x.py", "-p", "no:cacheprovider")
    assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 1, 1)
    (tmp_path / "test_x.py").write_text("import nothing_of_the_sort\n", encoding="utf-8")
    assert runner.pytest("unit", "test_x.py", "-p", "no:cacheprovider").failed == 1


# ---------------------------------------------------------------- make gpu


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three steps in place of the real ones: one good, one that fails, one that hangs."""
    (tmp_path / "good.py").write_text("import sys; print('out', sys.argv[1:])", encoding="utf-8")
    (tmp_path / "bad.py").write_text("raise SystemExit(3)", encoding="utf-8")
    (tmp_path / "slow.py").write_text(
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rows = [gpu.Step(name, name, 0, "…", minutes=0.02 if name == "slow" else 1)
            for name in ("slow", "bad", "good")]  # fmt: skip
    monkeypatch.setattr(gpu, "STEPS", tuple(rows))
    monkeypatch.setattr(gpu, "gpu_problem", lambda: "")
    return tmp_path


def test_a_failing_step_stops_nothing(steps: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--out", str(steps / "out")]) == 1
    out = capfd.readouterr().out
    assert f"['--out', '{steps / 'out'}']" in out
    table = out[out.index("seconds  outcome") :]
    assert "timed out (0.02 min)" in table
    assert "failed (3)" in table
    assert "  ok\n" in table
    assert 'make gpu STEP="slow bad"' in table
    assert gpu.main(["good"]) == 0


def test_an_unknown_step_lists_the_steps(steps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["better"]) == 2
    assert "good" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["limits"]) == 1
    words = capsys.readouterr().err
    assert words.count("\n") == 1
    assert "torch sees no CUDA GPU" in words


# ---------------------------------------------------------------- the README's picture


def test_the_picture_of_the_readme_shows_the_chapters_that_exist() -> None:
    from tools import readme_map

    said = "stale: run .venv/bin/python tools/readme_map.py"
    assert readme_map.TARGET.read_text(encoding="utf-8") == readme_map.drawing(), said
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_map.TARGET.relative_to(ROOT).as_posix() in text


# ---------------------------------------------------------------- make


def test_make_lists_its_commands() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    done = subprocess.run(
        [make, "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"MAKEFLAGS": ""},
    )
    for name in ("book", "site", "test", "lab", "gpu", "lint", "set-repo", "clean"):
        assert f"make {name} " in done.stdout


def test_workflows_and_citation_are_valid() -> None:
    pytest.importorskip("check_jsonschema")
    for schema, files in (
        ("vendor.github-workflows", sorted((ROOT / ".github/workflows").glob("*.yml"))),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ):
        assert files
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
        done = subprocess.run(
            [*command, *map(str, files)], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
