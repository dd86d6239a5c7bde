"""Fixtures for the lab toolkit: a learner with a folder of their own, and a shell to type into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infero.lab import cells, mode, session, swap


def _clean() -> None:
    mode.forget()
    cells.forget()
    swap.uninstall()
    session.forget()


@pytest.fixture(autouse=True)
def _fresh_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts in learn mode with an empty folder and the engine's own pieces."""
    monkeypatch.setenv("INFERO_LAB", "learn")
    monkeypatch.setenv("INFERO_MINE", str(tmp_path / "my_infero"))
    monkeypatch.setenv("INFERO_PIECES", "")
    monkeypatch.delenv("INFERO_GRADE_SEED", raising=False)
    _clean()
    yield
    _clean()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The learner's folder."""
    return tmp_path / "my_infero"


@pytest.fixture
def set_mode(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def change(value: str) -> None:
        monkeypatch.setenv("INFERO_LAB", value)
        mode.forget()

    return change


class Shell:
    """IPython in this process: `shell(text)` runs a cell and gives what it printed."""

    def __init__(self, ip: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.ip = ip
        self.capsys = capsys

    def __call__(self, text: str) -> str:
        self.capsys.readouterr()
        outcome = self.ip.run_cell(text, store_history=True)
        self.error = outcome.error_before_exec or outcome.error_in_exec
        return self.capsys.readouterr().out


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    ip = InteractiveShell.instance(colors="NoColor") if _old() else InteractiveShell.instance()
    cells.register()
    yield Shell(ip, capsys)
    ip.reset(new_session=False)
    InteractiveShell.clear_instance()


def _old() -> bool:
    import IPython

    return IPython.version_info < (9,)
