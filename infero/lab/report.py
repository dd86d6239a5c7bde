"""The state of the pieces, for `infero pieces` and `infero check`.

Whose each piece is, its lab and exercise, its last check and its speed against the reference. The
learner's folder is read in learn mode only; the other modes show the reference throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infero.lab import examine, mode, pieces, render, swap
from infero.lab.pieces import Piece


@dataclass(frozen=True)
class Row:
    """One line of `infero pieces`. `speed` is the reference's time over that of the piece."""

    piece: Piece
    whose: str  # "yours" | "reference"
    lab: str
    check: str
    speed: float | None


def rows() -> list[Row]:
    """One row a piece, in the order of the table."""
    known: dict[str, dict[str, Any]] = {}
    contracts: dict[str, int] = {}
    if mode.current() == "learn":
        from infero.lab import folder, saved

        known = folder.progress()
        contracts = {each.name: each.contract for each in saved.every()}
    return [
        _row(piece, known.get(piece.name, {}), contracts.get(piece.name)) for piece in pieces.PIECES
    ]


def _row(piece: Piece, known: dict[str, Any], contract: int | None) -> Row:
    last = known.get("last") or {}
    check = "–"
    if contract is not None and contract != piece.contract:
        check = f"saved for contract {contract}, now {piece.contract}: do it again"
    elif last:
        word = "passed" if last.get("check") == "passed" else f"failed ({last.get('check')})"
        check = f"{word} {str(last.get('date', ''))[:10]}"
    elif contract is not None:
        check = "saved, not checked yet"
    is_yours = swap.installed(piece.name) or (
        contract == piece.contract and last.get("check") == "passed"
    )
    speed = known.get("speed") if is_yours else None
    return Row(piece, "yours" if is_yours else "reference", piece.label, check, speed)


def print_pieces() -> None:
    """`infero pieces`: every piece on a line, and what to do next."""
    lines = rows()
    mine = sum(row.whose == "yours" for row in lines)
    table = render.Table(
        ("piece", "whose", "lab", "last check", "speed"),
        [
            (
                row.piece.name,
                row.whose,
                row.lab,
                row.check,
                f"{row.speed:.2f} x" if row.speed else "–",
            )
            for row in lines
        ],
    )
    render.say(render.plain_table(table))
    render.say(
        f"\n{mine} of {len(lines)} pieces are yours. "
        + (
            "`infero chat --mine` runs them; `infero check` checks them again."
            if mine
            else "`make lab` opens the labs, where you write them."
        ).replace("`", "")
    )


def check_saved(name: str | None = None) -> bool:
    """`infero check [piece]`: check saved pieces again, print what is found; True if all pass."""
    if mode.current() != "learn":
        render.say(f"INFERO_LAB={mode.current()}: saved pieces are read in learn mode only.")
        return False
    from infero.lab import folder, saved
    from infero.lab.session import card, speed_words

    try:
        wanted = pieces.find(name).name if name else None
    except pieces.UnknownPiece as error:
        render.say(f"{error}.")
        return False
    found = [each for each in saved.every() if wanted in (None, each.name)]
    if not found:
        what = (
            f"{wanted} is not among the saved pieces" if wanted else "there are no saved pieces yet"
        )
        render.say(
            f"In {folder.shown(folder.locate())} {what}. `make lab` opens the labs.".replace(
                "`", ""
            )
        )
        return wanted is None
    good = True
    for each in found:
        try:
            piece = pieces.find(each.name)
        except pieces.UnknownPiece as error:
            render.say(f"✗ {error}.")
            good = False
            continue
        if each.contract != piece.contract:
            render.say(
                f"✗ {piece.name} was written for contract {each.contract} and the engine now has "
                f"contract {piece.contract}: do {piece.label} again."
            )
            good = False
            continue
        outcome = examine.loaded(piece, lambda p=piece, e=each: saved.load(p, e))  # type: ignore[misc]
        if outcome.mistake is None:
            saved.note_passed(piece, each, outcome.speed)
        else:
            saved.note_failed(piece, outcome.mistake)
            good = False
        words = [speed_words(outcome.speed)] if outcome.passed and outcome.speed else []
        render.say(card(outcome, words).plain())
    return good
