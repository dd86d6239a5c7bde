"""Comparing numbers and lists of numbers in the checks of Lab 3."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from infero.lab.checking import Check, Mistake


def number(c: Check, got: Any, what: str) -> float:
    """`got` as a float, or a Mistake that says what came instead."""
    if got is None:
        raise Mistake(f"{what} is None: does your function end in `return`?", key="returns-none")
    try:
        value = float(got)
    except (TypeError, ValueError):
        raise Mistake(f"{what} should be one number; you gave {got!r}.", key="wrong-type") from None
    c.expect(not math.isnan(value), "nan", f"{what} is NaN (not a number): 0/0 or inf - inf.")
    return value


def numbers(c: Check, got: Any, what: str) -> torch.Tensor:
    """`got` as a float64 tensor [samples], or a Mistake."""
    if got is None:
        raise Mistake(f"{what} is None: does your function end in `return`?", key="returns-none")
    try:
        values = [number(c, value, f"entry {i} of {what}") for i, value in enumerate(got)]
    except TypeError:
        raise Mistake(f"{what} should be a list of numbers; you gave {got!r}.",
                      key="wrong-type") from None
    return torch.tensor(values, dtype=torch.float64)


def compare(c: Check, got: Any, want: Any, known: Mapping[str, tuple[str, Any]], *,
            what: str = "the result", axes: Sequence[str] = (), atol: float = 0.0,
            rtol: float = 1e-6) -> None:
    """`got` must be `want`; a known wrong value that really differs from `want` is named."""
    right = torch.as_tensor(want, dtype=torch.float64)
    telling = {}
    for key, (words, wrong) in known.items():
        other = torch.as_tensor(wrong, dtype=torch.float64)
        if other.shape != right.shape or not torch.allclose(other, right, rtol=10 * rtol,
                                                            atol=10 * atol):
            telling[key] = (words[:1].upper() + words[1:].rstrip(".") + ".", wrong)
    c.expect_close(got, want, axes=axes, atol=atol, rtol=rtol, known=telling, what=what)
