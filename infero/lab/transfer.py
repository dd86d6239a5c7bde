"""Taking the learner's pieces elsewhere: `lab.export("mine.zip")`, `lab.import_("mine.zip")`.

The file is a zip of the folder's Python files and records, or one `.py` file with every piece in
it. Importing unpacks nothing: pieces are read as text, each is checked, and only one that passes
is saved, as if it had been typed into its lab.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from infero.lab import examine, folder, pieces, saved
from infero.lab.render import Card
from infero.lab.saved import Section

LIMIT_BYTES = 4_000_000  # of one file inside; a learner's file has a few thousand
LIMIT_FILES = 500
_RECORDS = "measurements.json"


class ImportRefused(ValueError):
    """The file is not one that `lab.export` makes."""


def export(path: str | Path = "my_infero.zip") -> Path:
    """Write the learner's pieces and numbers to one file (`.zip`, or `.py` for pieces alone)."""
    target = Path(path).expanduser()
    found = saved.every()
    if target.suffix == ".py":
        parts = [
            f"# piece: {each.name} | contract: {each.contract} | exported: "
            f"{folder.now()}\n{each.text}"
            for each in found
        ]
        target.write_text(
            '"""Pieces of infero."""\n\n\n' + "\n\n".join(parts), encoding="utf-8", newline="\n"
        )
    elif target.suffix == ".zip":
        base = folder.locate()
        files = sorted({each.path for each in found})
        files += [base / name for name in ("progress.json", _RECORDS) if (base / name).is_file()]
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as bundle:
            for file in files:
                bundle.writestr(file.relative_to(base).as_posix(), file.read_bytes())
    else:
        raise ValueError(f"{target.name!r}: give the file a name that ends in .zip or .py")
    Card(
        "info",
        "Exported",
        [f"{len(found)} pieces are in `{target.as_posix()}`. `lab.import_` reads it."],
    ).show()
    return target


def import_(path: str | Path, *, overwrite: bool = False) -> list[str]:
    """Check the pieces of an exported file and save those that pass; the names saved.

    A piece you have already is kept unless `overwrite` is true.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source.as_posix()!r}")
    texts, numbers = _read(source)
    incoming = {each.name: each for file in texts for each in saved.split(file, source)[1]}
    if not incoming:
        raise ImportRefused(
            f"{source.name} holds no pieces: export them with lab.export('mine.zip')"
        )
    lines, taken = [], []
    for each in incoming.values():
        good, words = _take(each, overwrite)
        lines.append(words)
        taken += [each.name] if good else []
    _merge(numbers)
    Card(
        "info",
        f"Imported {len(taken)} of {len(incoming)} pieces",
        [*lines, "`lab.start` puts them to work." if taken else "The engine is unchanged."],
    ).show()
    return taken


def _take(each: Section, overwrite: bool) -> tuple[bool, str]:
    try:
        piece = pieces.find(each.name)
    except pieces.UnknownPiece:
        return False, f"`{each.name}`: skipped, the engine has no such piece."
    if each.contract != piece.contract:
        return False, (
            f"`{each.name}`: skipped, written for contract {each.contract}; the engine has "
            f"{piece.contract}."
        )
    mine = saved.section(piece)
    if mine is not None and mine.text.strip() == each.text.strip():
        return False, f"`{each.name}`: you have it already."
    if mine is not None and not overwrite:
        return (
            False,
            f"`{each.name}`: yours is kept; `lab.import_(path, overwrite=True)` replaces it.",
        )
    outcome = examine.text(piece, each.text)
    if outcome.mistake is not None:
        return False, f"`{each.name}`: skipped, {outcome.mistake.words.splitlines()[0]}"
    saved.keep(piece, each.text, outcome.speed)
    return True, f"`{each.name}`: passed its check and saved."


def _read(source: Path) -> tuple[list[str], dict[str, Any]]:
    """The Python texts and the numbers of an exported file; nothing is unpacked."""
    if source.suffix == ".py":
        if source.stat().st_size > LIMIT_BYTES:
            raise ImportRefused(
                f"{source.name} is larger than {LIMIT_BYTES:,} bytes: not one of ours"
            )
        return [source.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")], {}
    try:
        bundle = zipfile.ZipFile(source)
    except zipfile.BadZipFile:
        raise ImportRefused(
            f"{source.name} is neither a zip of lab.export nor a .py file"
        ) from None
    texts, numbers = [], {}
    with bundle:
        members = [info for info in bundle.infolist() if not info.is_dir()]
        if len(members) > LIMIT_FILES:
            raise ImportRefused(
                f"{source.name} holds {len(members)} files; at most {LIMIT_FILES} are read"
            )
        for info in members:
            _refuse_unsafe(info)
            if info.filename.endswith(".py") or info.filename == _RECORDS:
                with bundle.open(info) as member:
                    raw = member.read(LIMIT_BYTES + 1)
                if len(raw) > LIMIT_BYTES:
                    raise ImportRefused(
                        f"{info.filename} inside is larger than {LIMIT_BYTES:,} bytes"
                    )
                text = raw.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
                if info.filename == _RECORDS:
                    numbers = _numbers(text)
                else:
                    texts.append(text)
    return texts, numbers


def _refuse_unsafe(info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    link = (info.external_attr >> 16) & 0o170000 == 0o120000
    if name.startswith(("/", "\\")) or ":" in name or ".." in parts or "\\" in name or link:
        raise ImportRefused(f"the zip names a file outside itself ({name!r}): nothing was imported")


def _numbers(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _merge(numbers: dict[str, Any]) -> None:
    """Add imported predictions and measurements to keys that have none yet."""
    kept = folder.read_json(_RECORDS)
    changed = False
    for kind in ("predictions", "measurements"):
        table = numbers.get(kind)
        for key, entries in table.items() if isinstance(table, dict) else ():
            if isinstance(entries, list) and key not in kept.setdefault(kind, {}):
                kept[kind][key] = [entry for entry in entries if isinstance(entry, dict)][-20:]
                changed = True
    if changed:
        folder.write_json(_RECORDS, kept)
