"""Simple forms that a wrong tensor can have: a factor, a shift, exchanged axes and the like.

Each is tried on the whole result, in float64, and named only when it explains every value. They are
guesses for the learner to follow up, so the words say "looks like".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def first(mask: Any) -> tuple[int, ...]:
    """The index of the first true entry, in reading order."""
    if mask.dim() == 0:
        return ()
    return tuple(int(i) for i in mask.nonzero()[0])


def recognise(
    got: Any, want: Any, bad: Any, axes: Sequence[str], atol: float, rtol: float
) -> tuple[str, str] | None:
    """(key, words) of the form that explains all of `got`, or None."""
    import torch

    def same(a: Any, b: Any) -> bool:
        return bool(torch.isclose(a, b, rtol=max(rtol, 1e-6), atol=atol, equal_nan=True).all())

    finite = torch.isfinite(got) & torch.isfinite(want)
    if not bool(finite.all()):
        return _infinite(got, want)
    if got.numel() < 2:
        return None
    if not bool(got.any()):
        return "zeros", "Every value you gave is 0: was the result ever written?"
    if same(got, -want):
        return "negated", "It looks like the right result with its sign reversed."
    for a in range(got.dim()):
        for b in range(a + 1, got.dim()):
            if got.shape[a] == got.shape[b] > 1 and same(got.transpose(a, b), want):
                return "swapped-axes", (
                    f"It looks like the right result with {_axis(a, axes)} and {_axis(b, axes)} "
                    "exchanged."
                )
    factor = float((got * want).sum() / (want * want).sum().clamp_min(1e-300))
    if abs(factor - 1) > 1e-3 and abs(factor) > 1e-6 and same(got, want * factor):
        return (
            "scaled",
            f"It looks like the right result times {factor:.4g}: a factor is missing or extra.",
        )
    offset = float((got - want).mean())
    if abs(offset) > 10 * atol and same(got, want + offset):
        return "offset", f"It looks like the right result plus {offset:.4g} everywhere."
    moved = _moved(got, want, axes, same)
    if moved is not None:
        return moved
    tail = _tail(bad, axes)
    if tail is not None:
        return tail
    error = float((got - want).abs().max())
    scale = float(want.abs().max())
    if error < 0.01 * scale and error > 0:
        return "precision", (
            f"It is close: the largest error is {error:.1g} beside values up to {scale:.2g}. Is "
            "part of it computed in too low a precision, or is a small term (an epsilon) missing?"
        )
    return None


def _infinite(got: Any, want: Any) -> tuple[str, str] | None:
    import torch

    a, b = torch.isinf(got), torch.isinf(want)
    if torch.equal(a, b):
        return None
    more, less = int((a & ~b).sum()), int((b & ~a).sum())
    if more and not less:
        return "too-many-inf", f"{more} values are infinite that should be finite."
    if less and not more:
        return "too-few-inf", f"{less} values are finite that should be infinite."
    return (
        "other-inf",
        f"{more} values are infinite that should not be, {less} the other way round.",
    )


def _moved(got: Any, want: Any, axes: Sequence[str], same: Any) -> tuple[str, str] | None:
    for axis in range(got.dim()):
        size = got.shape[axis]
        if size < 2:
            continue
        if same(got.flip(axis), want):
            return "reversed", f"It looks like the right result with {_axis(axis, axes)} reversed."
        if size < 3:
            continue
        for by in (1, -1):
            inner = got.narrow(axis, 1 if by == 1 else 0, size - 1)
            other = want.narrow(axis, 0 if by == 1 else 1, size - 1)
            if same(inner, other) and not same(
                inner, want.narrow(axis, 1 if by == 1 else 0, size - 1)
            ):
                way = "late" if by == 1 else "early"
                return "shifted", (
                    f"It looks like the right result one {_plain(axis, axes)} too {way}: off by "
                    "one."
                )
    return None


def _tail(bad: Any, axes: Sequence[str]) -> tuple[str, str] | None:
    """Only the last entry along one axis is wrong, and all before it are right."""
    for axis in range(bad.dim()):
        size = bad.shape[axis]
        if size < 3:
            continue
        others = [i for i in range(bad.dim()) if i != axis]
        differs = bad.amax(dim=others) if others else bad
        if int(differs.sum()) == 1 and (bool(differs[-1]) or bool(differs[0])):
            end = "last" if bool(differs[-1]) else "first"
            return (
                "edge",
                f"Only the {end} {_plain(axis, axes)} is wrong: look at the edges of your ranges.",
            )
    return None


def _axis(axis: int, axes: Sequence[str]) -> str:
    return f"the {axes[axis]} axis" if axis < len(axes) else f"axis {axis}"


def _plain(axis: int, axes: Sequence[str]) -> str:
    return axes[axis] if axis < len(axes) else f"entry of axis {axis}"
