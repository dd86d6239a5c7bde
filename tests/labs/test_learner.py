"""A learner at work: start, check, save, swap, come back, take it elsewhere."""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from infero.lab import folder, mode, pieces, report, saved, session, swap, transfer
from tests.labs.conftest import Shell
from tests.labs.test_checking import GOOD

NORM = "infero.model.rms_norm"
SWIGLU = "infero.model.swiglu"
STUB = (
    f'#| exercise: {NORM}\ndef rms_norm(x, weight, eps):\n    raise NotImplementedError("Lab 1")\n'
)
WRONG = GOOD.replace(" + eps", "")
GATE = f"#| exercise: {SWIGLU}\ndef swiglu(gate, up):\n    return gate / (1 + (-gate).exp()) * up\n"
START = "from infero import lab\nlab.start(1)"
CHECK = "lab.check(rms_norm)"


def test_from_stub_to_engine(shell: Shell, mine: Path) -> None:
    from infero import model

    said = shell(START)
    assert "Lab 1: From prompt to token" in said
    assert "Mode: learn" in said
    assert "the engine runs its own" in said
    shell(STUB)
    assert "Not written yet" in shell(CHECK)
    assert not mine.joinpath("model.py").exists()
    shell(WRONG)
    said = shell(CHECK)
    assert "Not yet: Lab 1, exercise 1" in said
    assert "eps" in said
    assert shell.ip.user_ns["rms_norm"] is swap.reference(NORM)
    assert not swap.installed(NORM)
    shell(GOOD)
    said = shell(CHECK)
    assert "Passed: Lab 1, exercise 1" in said
    assert "my_infero/model.py" in said
    assert swap.installed(NORM)
    assert model.rms_norm.__code__.co_filename == str(mine / "model.py")
    assert "def widened" in mine.joinpath("model.py").read_text()
    # the engine's own tracebacks now show the learner's lines
    line = (
        mine.joinpath("model.py")
        .read_text()
        .splitlines()[model.rms_norm.__code__.co_firstlineno - 1]
    )
    assert line == "def rms_norm(x, weight, eps):"
    # a later failure keeps the good one
    shell(WRONG)
    assert "the one of yours that passed before" in shell(CHECK)
    assert swap.installed(NORM)


def test_a_restarted_kernel(shell: Shell) -> None:
    shell(START)
    shell(GOOD)
    shell(CHECK)
    swap.uninstall()  # what a new process begins with
    session.forget()
    said = shell("lab.start('01')")
    assert f"Yours: {NORM}." in said
    assert swap.installed(NORM)


def test_a_check_without_its_cell(shell: Shell) -> None:
    shell(START)
    shell("def rms_norm(x, weight, eps):\n    return x")
    assert "I have not seen the exercise cell" in shell(CHECK)
    assert "no piece is called 'other'" in shell("def other(): pass\nlab.check(other)")
    assert shell.error is None


def test_another_function_of_that_name(shell: Shell) -> None:
    shell(START)
    shell(GOOD)
    shell("def rms_norm(x, weight, eps):\n    return x * 17")
    said = shell(CHECK)
    assert "Passed" in said
    assert "was another function" in said
    assert shell.ip.user_ns["rms_norm"] is swap._installed[NORM].function


def test_labs_in_any_order_and_twice(shell: Shell) -> None:
    for _ in range(2):
        shell("from infero import lab\nlab.start(2)")
        assert shell.error is None
        shell("lab.start(1)")
        shell(GATE)
        assert "Passed" in shell("lab.check(swiglu)")
        shell(GOOD)
        assert "Passed" in shell(CHECK)


@pytest.mark.parametrize("wrong", ["learning", "solution", "1"])
def test_a_wrong_mode_is_an_error(wrong: str, set_mode: Callable[[str], None]) -> None:
    set_mode(wrong)
    with pytest.raises(ValueError, match=f"INFERO_LAB='{wrong}'.*learn.*solutions"):
        mode.current()


@pytest.mark.parametrize("lab", ["0", "", "one", 99])
def test_a_wrong_lab_is_an_error(lab: str) -> None:
    with pytest.raises(ValueError, match="there is no lab"):
        session.start(lab)


def test_grade_mode(shell: Shell, set_mode: Callable[[str], None], mine: Path) -> None:
    set_mode("grade")
    assert "Mode: grade" in shell(START)
    shell(GOOD)
    assert "Passed" in shell(CHECK)
    assert shell.error is None
    assert not swap.installed(NORM)
    shell(WRONG)
    shell(CHECK)
    assert type(shell.error).__name__ == "CheckFailed"
    assert "eps" in str(shell.error)
    assert not mine.exists()


def test_solutions_mode_ignores_saved_pieces(
    shell: Shell, set_mode: Callable[[str], None], mine: Path
) -> None:
    saved.keep(pieces.find(NORM), GOOD, None)
    swap.install_mine()
    set_mode("solutions")
    before = {p: p.stat().st_mtime_ns for p in mine.rglob("*")}
    assert "Mode: solutions" in shell(START)
    assert not swap.installed(NORM)
    shell("p = lab.predict('x', None, formula=lambda: 3.0)\nm = lab.measure('x', lambda: 4.0)")
    shell("lab.reconcile(p, m)")
    assert {p: p.stat().st_mtime_ns for p in mine.rglob("*")} == before


def test_uninstall(shell: Shell) -> None:
    shell(START)
    shell(GOOD)
    shell(CHECK)
    assert NORM in shell("lab.uninstall('rms_norm')")
    assert not swap.installed(NORM)
    assert "nothing" in shell("lab.uninstall()")


# -- the folder -----------------------------------------------------------------------------------


def test_the_saved_file_is_readable_and_grows(mine: Path) -> None:
    saved.keep(pieces.find(SWIGLU), GATE, 0.5)
    saved.keep(pieces.find(NORM), GOOD, 1.5)
    saved.keep(pieces.find(SWIGLU), GATE.replace("gate /", "1 * gate /"), 0.5)
    text = mine.joinpath("model.py").read_text()
    compile(text, "model.py", "exec")
    assert text.count("# piece: ") == 2
    assert text.index(NORM) < text.index(SWIGLU), "in the order of the exercises"
    assert re.search(
        r"# piece: \S+ \| contract: 1 \| saved: \d{4}-\d\d-\d\d .* \| check: passed", text
    )
    assert "import torch\n" in text
    assert text.count("import torch\n") == 1
    assert sorted(p.name for p in mine.iterdir()) == ["README.md", "model.py", "progress.json"]
    assert [each.name for each in saved.every()] == [NORM, SWIGLU]
    for each in saved.every():
        assert text.splitlines()[each.first_line - 1] == f"#| exercise: {each.name}"


def test_what_is_added_by_hand_stays(mine: Path) -> None:
    saved.keep(pieces.find(SWIGLU), GATE, None)
    path = mine / "model.py"
    path.write_text(
        path.read_text().replace("# piece:", "def helper(x):\n    return x\n\n\n# piece:", 1)
        .replace("return gate /", "return helper(gate) /")
    )  # fmt: skip
    lines = swap.install_mine()
    assert any("passed its check again" in line for line in lines), lines
    saved.keep(pieces.find(NORM), GOOD, None)
    assert "def helper(x)" in path.read_text()
    assert swap.install_mine()[0].startswith("Yours: ")
    assert len(swap.install_mine()) == 1


def test_windows_line_ends_and_a_bom(mine: Path) -> None:
    saved.keep(pieces.find(NORM), GOOD, None)
    path = mine / "model.py"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert swap.install_mine() == [f"Yours: {NORM}."]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pieces": []}', '{"pieces": {"a": 1}}', "\x00"])
def test_damaged_records_are_empty_ones(text: str, mine: Path) -> None:
    saved.keep(pieces.find(NORM), GOOD, None)
    (mine / "progress.json").write_text(text)
    (mine / "measurements.json").write_text(text)
    assert swap.installed(NORM) or swap.install_mine()[0] == f"Yours: {NORM}."
    report.rows()


def test_a_file_that_is_not_text(mine: Path) -> None:
    mine.mkdir()
    (mine / "model.py").write_bytes(bytes(range(256)))
    assert swap.install_mine()[0].startswith("No saved piece")


def test_a_folder_that_cannot_be_written(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied")

    shell(START)
    monkeypatch.setattr(folder, "_replace", refuse)
    shell(GOOD)
    said = shell(CHECK)
    assert "could not be saved" in said
    assert "installed" in said
    assert swap.installed(NORM)
    assert "could not be written" in shell("lab.measure('a', lambda: 1.0)")
    assert shell.error is None


def test_a_crash_while_writing_leaves_the_old_file(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.keep(pieces.find(NORM), GOOD, None)
    before = (mine / "model.py").read_text()

    def crash(source: object, target: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(RuntimeError):
        saved.keep(pieces.find(NORM), GOOD.replace("wide", "broad"), None)
    assert (mine / "model.py").read_text() == before
    assert not list(mine.glob(".*.tmp"))


def test_a_busy_file_is_tried_again(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []
    real = os.replace

    def busy(source: str, target: str) -> None:
        attempts.append(target)
        if len(attempts) < 3:
            raise PermissionError("in use")
        real(source, target)

    monkeypatch.setattr(os, "replace", busy)
    folder.write(mine / "a.txt", "x")
    assert (mine / "a.txt").read_text() == "x"


def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_MINE", str(tmp_path / "with space" / "café"))
    assert folder.locate() == tmp_path / "with space" / "café"
    saved.keep(pieces.find(NORM), GOOD, None)
    assert swap.install_mine() == [f"Yours: {NORM}."]
    monkeypatch.delenv("INFERO_MINE")
    root = tmp_path / "checkout"
    monkeypatch.setattr(folder, "repository", lambda: root)
    assert folder.locate() == root / "my_infero"
    monkeypatch.setattr(folder, "repository", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert folder.locate() == tmp_path / "my_infero"
    inside = tmp_path / "my_infero" / "labs"
    inside.mkdir(parents=True)
    (tmp_path / "my_infero" / "progress.json").write_text("{}")
    monkeypatch.chdir(inside)
    assert folder.locate() == tmp_path / "my_infero"


def test_on_colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.delenv("INFERO_MINE")
    drive = tmp_path / "MyDrive"
    monkeypatch.setattr(folder, "_DRIVE", drive)
    monkeypatch.setattr(folder, "repository", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert folder.locate() == tmp_path / "my_infero"
    assert "drive.mount" in folder.lasting()
    drive.mkdir()
    assert folder.locate() == drive / "my_infero"
    assert folder.lasting() == ""


def test_pieces_of_subpackages_have_their_own_folder(mine: Path) -> None:
    piece = pieces.Piece(
        "infero.quant.int8.scale", lab="01", exercise="9", title="", check="", configuration=""
    )
    assert saved.file_of(piece) == mine / "quant" / "int8.py"


# -- report ---------------------------------------------------------------------------------------


def test_infero_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    saved.keep(pieces.find(NORM), GOOD, 0.5)
    report.print_pieces()
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith(NORM))
    assert re.search(r"yours +Lab 1, exercise 1 +passed \d{4}-\d\d-\d\d +0.50 x", line)
    assert len(said.splitlines()) == len(pieces.PIECES) + 3
    assert f"1 of {len(pieces.PIECES)} pieces are yours" in said


def test_infero_check(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.check_saved() is True
    assert report.check_saved("model.rms_norm") is False
    assert "not among the saved pieces" in capsys.readouterr().out
    assert report.check_saved("no_such") is False
    assert "no piece is called" in capsys.readouterr().out
    saved.keep(pieces.find(NORM), GOOD, None)
    saved.keep(pieces.find(SWIGLU), GATE, None)
    assert report.check_saved() is True
    assert capsys.readouterr().out.count("Passed") == 2
    path = mine / "model.py"
    path.write_text(path.read_text().replace(" + eps", ""))
    assert report.check_saved("model.swiglu") is True
    assert report.check_saved("model.rms_norm") is False
    said = capsys.readouterr().out
    assert "Not yet: Lab 1, exercise 1: rms_norm" in said
    row = next(row for row in report.rows() if row.piece.name == NORM)
    assert row.check.startswith("failed (")


def test_infero_check_names_a_line_of_the_file(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved.keep(pieces.find(NORM), GOOD, None)
    path = mine / "model.py"
    path.write_text(path.read_text().replace("return x.float()", "return [x][1]"))
    assert report.check_saved() is False
    assert "of model.py:\n      return [x][1]" in capsys.readouterr().out


# -- taking it elsewhere --------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Export two pieces under a name, and move to an empty folder."""

    def make(name: str) -> Path:
        saved.keep(pieces.find(NORM), GOOD, None)
        saved.keep(pieces.find(SWIGLU), GATE, None)
        folder.write_json("measurements.json", {"measurements": {"k": [{"value": 1.0}]}})
        path = transfer.export(tmp_path / name)
        monkeypatch.setenv("INFERO_MINE", str(tmp_path / "elsewhere"))
        return path

    return make


@pytest.mark.parametrize("name", ["mine.zip", "mine.py"])
def test_export_and_import(name: str, exported: Callable[[str], Path]) -> None:
    path = exported(name)
    assert transfer.import_(path) == [NORM, SWIGLU]
    assert set(swap.install_mine()) == {f"Yours: {NORM}, {SWIGLU}."}
    assert transfer.import_(path) == [], "they are there already"
    if name.endswith(".zip"):
        assert folder.read_json("measurements.json")["measurements"]["k"] == [{"value": 1.0}]


def test_import_keeps_ones_own(exported: Callable[[str], Path]) -> None:
    path = exported("mine.zip")
    own = GOOD.replace("wide", "broad")
    saved.keep(pieces.find(NORM), own, None)
    assert transfer.import_(path) == [SWIGLU]
    section = saved.section(pieces.find(NORM))
    assert section is not None
    assert "broad" in section.text
    assert transfer.import_(path, overwrite=True) == [NORM]


def test_import_takes_only_what_passes(
    exported: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported("mine.py")
    text = (
        path.read_text()
        .replace(" + eps", "")
        .replace(f"{SWIGLU} | contract: 1", f"{SWIGLU} | contract: 3")
    )
    path.write_text(text + "\n# piece: infero.gone | contract: 1\nx = 1\n")
    assert transfer.import_(path) == []
    said = capsys.readouterr().out
    assert "eps" in said
    assert "contract 3" in said
    assert "no such piece" in said
    assert not folder.locate().exists()


@pytest.mark.parametrize("name", [
    "../evil.py", "/etc/evil.py", "a/../../evil.py", "..\\evil.py", "C:\\evil.py", "C:evil.py",
])  # fmt: skip
def test_import_refuses_to_leave_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("model.py", f"# piece: {NORM} | contract: 1\n{GOOD}")
        info = zipfile.ZipInfo("x")
        info.filename = name
        bundle.writestr(info, "boom")
    with pytest.raises(transfer.ImportRefused, match="outside itself"):
        transfer.import_(path)
    assert not folder.locate().exists()


def test_import_refuses_links_bombs_and_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        info = zipfile.ZipInfo("model.py")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(info, "/etc/passwd")
    with pytest.raises(transfer.ImportRefused):
        transfer.import_(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("model.py", "#" * (transfer.LIMIT_BYTES + 1))
    with pytest.raises(transfer.ImportRefused, match="larger"):
        transfer.import_(path)
    path.write_bytes(b"no zip")
    with pytest.raises(transfer.ImportRefused, match="neither"):
        transfer.import_(path)
    with pytest.raises(FileNotFoundError):
        transfer.import_(tmp_path / "absent.zip")
    with pytest.raises(ValueError, match=r"\.zip or \.py"):
        transfer.export(tmp_path / "mine.tar")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(transfer.ImportRefused, match="no pieces"):
        transfer.import_(tmp_path / "empty.py")


def test_export_outside_learn_mode(set_mode: Callable[[str], None], tmp_path: Path) -> None:
    set_mode("solutions")
    with pytest.raises(folder.WrongMode, match="learn mode only"):
        transfer.export(tmp_path / "a.zip")


def test_records_are_json(mine: Path) -> None:
    saved.keep(pieces.find(NORM), GOOD, None)
    kept = json.loads((mine / "progress.json").read_text())
    assert kept["format"] == 1
    assert kept["pieces"][NORM]["last"]["check"] == "passed"
