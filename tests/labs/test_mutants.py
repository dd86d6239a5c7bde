"""Every planted wrong answer is rejected, and the diagnosis it declares is the one given."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from infero.lab import examine, pieces

FOLDER = Path(__file__).parent / "mutants"
MUTANTS = sorted(FOLDER.glob("lab*/*.py"))
HEAD = re.compile(r"^# (mutant|diagnosis|story): (.*)$", re.MULTILINE)


def facts(path: Path) -> tuple[dict[str, str], str]:
    """The comment lines of a mutant, and the exercise cell below them."""
    text = path.read_text(encoding="utf-8")
    return dict(HEAD.findall(text)), text[text.index("#| exercise:") :]


@pytest.mark.parametrize("path", MUTANTS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_wrong_answer_is_rejected(path: Path) -> None:
    head, cell = facts(path)
    piece = pieces.find(head["mutant"])
    assert f"#| exercise: {piece.name}\n" in cell, "the cell and the mutant line name one piece"
    assert path.name.startswith(f"{piece.attribute}__")
    assert path.parent.name == f"lab{piece.lab}"
    assert head.get("story"), "say in one line what was misunderstood"
    outcome = examine.text(piece, cell)
    assert outcome.mistake is not None, f"a wrong answer passes: {head['story']}"
    if "diagnosis" in head:
        assert outcome.mistake.key == head["diagnosis"].strip(), outcome.mistake.words
    assert outcome.mistake.words.strip()


def test_every_exercise_has_three() -> None:
    count = Counter(facts(path)[0]["mutant"].strip() for path in MUTANTS)
    short = {p.name: count[p.name] for p in pieces.PIECES if count[p.name] < 3}
    assert not short


@pytest.mark.parametrize("piece", pieces.PIECES, ids=lambda p: p.name)
def test_the_reference_passes_and_quickly(piece: pieces.Piece) -> None:
    first = examine.reference(piece)
    assert first.mistake is None, first.mistake.words
    # 0.2 s is the promise; a loaded machine gets five times that.
    assert min(first.seconds, examine.reference(piece).seconds) < 1.0
