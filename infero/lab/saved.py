"""Saved pieces: one readable file a module, `my_infero/model.py`, a section a piece.

A section opens with one line of facts and holds the exercise cell as it was typed:

    # piece: infero.model.rms_norm | contract: 1 | saved: 2026-01-31 10:00:00 UTC | check: passed

Each section is compiled on its own, so a broken one does not take its neighbours with it. A section
whose text is not the one that passed was edited by hand and is checked again before it is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from infero.lab import candidate, examine, folder, pieces
from infero.lab.candidate import Candidate
from infero.lab.checking import AnswerKeyCalled, Mistake
from infero.lab.pieces import Piece
from infero.lab.swap import fingerprint

_LINE = re.compile(
    r"^# piece: (?P<name>[\w.]+) \| contract: (?P<contract>\d+)(?P<rest>.*)$", re.MULTILINE
)


@dataclass
class Section:
    """One piece in a file: its text starts at line `first_line` (counted from 1)."""

    name: str
    contract: int
    text: str
    first_line: int
    path: Path
    top: str


@dataclass
class Usable:
    """A saved piece on its way into the engine; `candidate` is None when it is skipped."""

    name: str
    candidate: Candidate | None
    text: str = ""
    words: str = ""


def file_of(piece: Piece) -> Path:
    """infero.quant.int8 is kept in my_infero/quant/int8.py."""
    parts = piece.module.split(".")[1:]
    return folder.locate().joinpath(*parts).with_suffix(".py")


def split(text: str, path: Path) -> tuple[str, list[Section]]:
    """The top of a file (its imports) and its sections."""
    marks = list(_LINE.finditer(text))
    top = text[: marks[0].start()] if marks else text
    sections = []
    for i, mark in enumerate(marks):
        end = marks[i + 1].start() if i + 1 < len(marks) else len(text)
        body = text[mark.end() + 1 : end]
        first_line = text.count("\n", 0, mark.end()) + 2
        sections.append(
            Section(
                mark["name"],
                int(mark["contract"]),
                body.strip("\n") + "\n",
                first_line + len(body) - len(body.lstrip("\n")),
                path,
                top,
            )
        )
    return top, sections


def sections(path: Path) -> list[Section]:
    text = folder.read(path)
    return split(text, path)[1] if text is not None else []


def section(piece: Piece) -> Section | None:
    """The saved section of one piece; the last one where a file holds two."""
    found = [each for each in sections(file_of(piece)) if each.name == piece.name]
    return found[-1] if found else None


def every() -> list[Section]:
    """Every section of the folder's Python files, a piece once (its last section)."""
    base = folder.locate()
    if not base.is_dir():
        return []
    found: dict[str, Section] = {}
    for path in sorted(base.rglob("*.py")):
        inside = path.relative_to(base).parts
        if inside[0] != "labs" and not any(part.startswith(".") for part in inside):
            found.update({each.name: each for each in sections(path)})
    return list(found.values())


def _facts(piece: Piece, date: str) -> str:
    return f"# piece: {piece.name} | contract: {piece.contract} | saved: {date} | check: passed"


def save(piece: Piece, text: str) -> Section:
    """Write the text of a piece that passed into the file of its module."""
    path = file_of(piece)
    old = folder.read(path) or ""
    top, others = split(old, path)
    if not top.strip():
        top = (
            f'"""Your pieces of {piece.module}, each as it passed its check.\n\n'
            'Edit them as you like; `infero check` checks them again.\n"""\n\n'
            "from __future__ import annotations\n"
        )
    have = set(top.splitlines())
    wanted = candidate.header(piece, text).splitlines()
    missing = [line for line in wanted if line and line not in have]
    if missing:
        gap = "\n" if have.isdisjoint(candidate.module_imports(piece.module)) else ""
        top = top.rstrip("\n") + "\n" + gap + "\n".join(missing) + "\n"
    order = [each.name for each in pieces.PIECES]
    body = {each.name: (old_line(old, each), each.text) for each in others}
    body[piece.name] = (_facts(piece, folder.now()), text.strip("\n") + "\n")
    names = sorted(body, key=lambda n: order.index(n) if n in order else len(order))
    written = top.rstrip("\n") + "\n"
    for name in names:
        facts, cell = body[name]
        written += f"\n\n{facts}\n{cell}"
    folder.write(path, written)
    saved = section(piece)
    assert saved is not None
    return saved


def old_line(text: str, each: Section) -> str:
    """The line of facts of a section as it stands in the file."""
    return next(m.group(0) for m in reversed(list(_LINE.finditer(text))) if m["name"] == each.name)


def load(piece: Piece, each: Section) -> Candidate:
    return candidate.load_saved(piece, each.top, each.text, each.path, each.first_line)


def passed_before(each: Section) -> bool:
    """Whether this very text, under these imports, is the one that passed."""
    known = folder.progress().get(each.name, {})
    return known.get("fingerprint") == fingerprint(each.top + each.text)


def keep(piece: Piece, text: str, speed: float | None) -> Section:
    """Save a piece that passed, and remember it as the last good one."""
    saved = save(piece, text)
    note_passed(piece, saved, speed)
    return saved


def note_passed(piece: Piece, each: Section, speed: float | None) -> None:
    for other in sections(each.path):  # the file's imports may have grown: so have all its prints
        if other.name != piece.name and _same_text_passed(other):
            folder.remember(other.name, fingerprint=fingerprint(other.top + other.text))
    folder.remember(
        piece.name,
        contract=piece.contract,
        fingerprint=fingerprint(each.top + each.text),
        good=each.text,
        passed=folder.now(),
        speed=round(speed, 3) if speed else None,
        last={"check": "passed", "date": folder.now(), "words": ""},
    )


def _same_text_passed(each: Section) -> bool:
    return bool(folder.progress().get(each.name, {}).get("good") == each.text)


def note_failed(piece: Piece, mistake: Mistake) -> None:
    folder.remember(
        piece.name,
        last={"check": mistake.key, "date": folder.now(), "words": mistake.words},
    )


def usable() -> list[Usable]:
    """Every saved piece, checked again where it was edited, ready to install or named as "
    "skipped."""
    return [_usable(each) for each in every()]


def _usable(each: Section) -> Usable:
    try:
        piece = pieces.find(each.name)
    except pieces.UnknownPiece:
        return Usable(each.name, None, words=f"Skipped {each.name}: the engine has no such piece.")
    if each.contract != piece.contract:
        return Usable(
            each.name,
            None,
            words=(
                f"Skipped {each.name}: it was written for contract {each.contract} and the engine "
                f"now has contract {piece.contract}. Do {piece.label} again."
            ),
        )
    if passed_before(each):
        try:
            return Usable(each.name, load(piece, each), each.text)
        except (Mistake, AnswerKeyCalled) as error:
            return _last_good(piece, each, str(error))
    outcome = examine.loaded(piece, lambda: load(piece, each))
    if outcome.passed:
        note_passed(piece, each, outcome.speed)
        return Usable(
            each.name,
            outcome.candidate,
            each.text,
            f"{each.name} was edited; it passed its check again.",
        )
    assert outcome.mistake is not None
    note_failed(piece, outcome.mistake)
    return _last_good(piece, each, outcome.mistake.words)


def _last_good(piece: Piece, each: Section, words: str) -> Usable:
    """After a failed re-check: the text that passed last, if it is known and still passes."""
    why = f"{each.name} in {folder.shown(each.path)} does not pass: {words.splitlines()[0]}"
    good = folder.progress().get(each.name, {})
    text = good.get("good")
    if isinstance(text, str) and good.get("contract") == piece.contract and text != each.text:
        outcome = examine.text(piece, text)
        if outcome.passed:
            return Usable(
                each.name,
                outcome.candidate,
                text,
                f"{why} The version that passed on {good.get('passed')} stays in use.",
            )
    return Usable(each.name, None, words=f"Skipped {why}")
