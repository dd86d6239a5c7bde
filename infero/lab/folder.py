"""The learner's folder: where it is, and writing to it without losing anything.

`$INFERO_MINE` names it; else Google Drive on Colab, where it is mounted; else `my_infero/` at the
root of the book's repository, or in the current folder when the engine is installed as a package.
Only learn mode reads or writes it. Every write goes to a neighbour file first and is then renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infero.lab import mode

NAME = "my_infero"
_DRIVE = Path("/content/drive/MyDrive")
_README = """\
# Your pieces of the engine

Everything here is yours. `model.py`, `sampling.py` and the others hold the functions you wrote in
the labs and that passed their checks; edit them as you like, `infero check` checks them again.
`labs/` holds your copies of the notebooks. `infero pieces` lists what is in use, and
`infero chat --mine` runs it. Pulling a new version of the book never touches this folder.
"""


class WrongMode(RuntimeError):
    """The folder was asked for outside learn mode."""


def repository() -> Path | None:
    """The root of the book's repository, where the engine runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "labs").is_dir() else None


def on_colab() -> bool:
    return "google.colab" in sys.modules


def locate() -> Path:
    """The path of the learner's folder, whether it exists yet or not."""
    if mode.current() != "learn":
        raise WrongMode(
            f"the learner's folder is read and written in learn mode only, and this is "
            f"{mode.current()} mode: unset INFERO_LAB and restart the kernel"
        )
    named = os.environ.get("INFERO_MINE", "").strip()
    if named:
        return Path(named).expanduser().absolute()
    if on_colab() and _DRIVE.is_dir():
        return _DRIVE / NAME
    root = repository()
    if root is not None:
        return root / NAME
    here = Path.cwd()
    for parent in (here, *here.parents):  # a notebook inside the folder means the folder
        if parent.name == NAME and (parent / "progress.json").is_file():
            return parent
    return here / NAME


def shown(path: Path) -> str:
    """A path as the learner knows it: from the folder's own name on, with forward slashes."""
    base = locate()
    try:
        return (Path(base.name) / path.relative_to(base)).as_posix()
    except ValueError:
        return path.as_posix()


def lasting() -> str:
    """A warning where the folder will not outlive the session, else nothing."""
    if on_colab() and not locate().is_relative_to(_DRIVE):
        return (
            "Colab forgets this folder when the session ends. To keep your pieces, mount Drive "
            "(`from google.colab import drive; drive.mount('/content/drive')`) and run this cell "
            "again, or download them with `lab.export('mine.zip')`."
        )
    return ""


def write(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of either."""
    first = not locate().exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text)
    if first and path.is_relative_to(locate()):
        _replace(locate() / "README.md", _README)


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        for attempt in range(5):
            try:
                os.replace(temporary, path)
                return
            except PermissionError:  # Windows: a scanner or an editor holds the file for a moment
                if attempt == 4:
                    raise
                time.sleep(0.05 * 2**attempt)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def read(path: Path) -> str | None:
    """The text of a file, or None where there is none."""
    try:
        return path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return path.read_bytes().decode("utf-8", errors="replace")


def read_json(name: str) -> dict[str, Any]:
    """One of the folder's own records; a missing or damaged one is an empty one."""
    text = read(locate() / name)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def write_json(name: str, value: dict[str, Any]) -> None:
    write(locate() / name, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def progress() -> dict[str, dict[str, Any]]:
    """What is known of each piece: fingerprint of the text that passed, dates, speed, last "
    "check."""
    kept = read_json("progress.json").get("pieces", {})
    return kept if isinstance(kept, dict) else {}


def remember(name: str, **facts: Any) -> None:
    """Add facts about one piece to the record."""
    kept = progress()
    entry = kept.get(name)
    kept[name] = {**(entry if isinstance(entry, dict) else {}), **facts}
    write_json("progress.json", {"format": 1, "pieces": kept})


def now() -> str:
    """The time as it is kept in records: UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
