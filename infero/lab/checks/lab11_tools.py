"""Comparing all answers of a candidate at once, for the checks of Lab 11."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infero.lab.checking import Mistake

Wrongs = Mapping[str, tuple[str, Callable[..., Any]]]


def judge(cases: Sequence[tuple[Any, ...]], answers: Sequence[Any], right: Callable[..., Any],
          wrongs: Wrongs, words: Callable[..., str], same: Callable[[Any, Any], bool]) -> None:
    """A Mistake unless all answers are right; named if they are exactly those of a known mistake.

    words(answer, wanted, *case) describes the first case that is wrong.
    """
    wanted = [right(*case) for case in cases]
    bad = [i for i, w in enumerate(wanted) if not same(answers[i], w)]
    if not bad:
        return
    first = words(answers[bad[0]], wanted[bad[0]], *cases[bad[0]])
    for key, (says, wrong) in wrongs.items():
        if all(same(a, wrong(*case)) for a, case in zip(answers, cases, strict=True)):
            raise Mistake(says[:1].upper() + says[1:].rstrip(".") + ".", key=key, details=[first])
    raise Mistake(first, key="wrong")


def equal(a: Any, b: Any) -> bool:
    return bool(a == b)


def close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(b))
