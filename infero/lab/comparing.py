"""Words for the difference between what a candidate gave and what was expected.

`compare` looks at type, shape, dtype, NaN and values in that order and stops at the first thing
wrong. For values it says where they first differ in the exercise's own axes ("token 3, head 1"),
which heads or tokens agree, and whether the difference has a simple form: a factor, a shift, a
reversal, exchanged axes, a lost tail, lost precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infero.lab import patterns

#: keys that speak of the form of a result and not of its values
FORM = frozenset({"returns-none", "wrong-type", "wrong-dtype", "wrong-device"})


@dataclass
class Difference:
    words: str
    key: str
    details: list[str] = field(default_factory=list)


def compare(
    got: Any,
    want: Any,
    axes: Sequence[str] = (),
    atol: float | None = None,
    rtol: float | None = None,
    dtype: Any = None,
    what: str = "",
    exact: bool = False,
) -> Difference | None:
    """None when `got` is `want`; otherwise what is wrong."""
    import torch

    subject = what or "the result"
    if got is None and want is not None:
        return Difference(
            f"{_cap(subject)} is None: does your function end in `return`?", "returns-none"
        )
    if not isinstance(want, torch.Tensor):
        return _compare_plain(got, want, axes, atol, rtol, subject, exact)
    if not isinstance(got, torch.Tensor):
        return Difference(
            f"{_cap(subject)} should be a tensor of shape {shape_words(want.shape, axes)}; "
            f"you gave {brief(got)}.",
            "wrong-type",
        )
    if got.shape != want.shape:
        return _compare_shapes(tuple(got.shape), tuple(want.shape), axes, subject)
    wanted = dtype or (None if want.dtype == torch.float64 else want.dtype)
    if wanted is not None and got.dtype != wanted:
        return Difference(
            f"{_cap(subject)} should have dtype {_dtype(wanted)}; yours has {_dtype(got.dtype)}. "
            "Compute in whatever precision you need and convert at the end: "
            f"`.to({_dtype(wanted)})`"
            " (or the dtype of the input).",
            "wrong-dtype",
        )
    if got.device != want.device:
        return Difference(
            f"{_cap(subject)} should be on device {want.device}; yours is on {got.device}. Make "
            "new tensors with `device=` of the input.",
            "wrong-device",
        )
    return _compare_values(got, want, axes, atol, rtol, subject, exact)


# -- values ---------------------------------------------------------------------------------------


def _tolerances(got: Any, atol: float | None, rtol: float | None) -> tuple[float, float]:
    import torch

    coarse = got.dtype in (torch.bfloat16, torch.float16)
    fine = got.dtype == torch.float64
    default = 2e-2 if coarse else 1e-9 if fine else 2e-5
    return default if atol is None else atol, default if rtol is None else rtol


def _compare_values(
    got: Any,
    want: Any,
    axes: Sequence[str],
    atol: float | None,
    rtol: float | None,
    subject: str,
    exact: bool,
) -> Difference | None:
    import torch

    if got.is_complex() or want.is_complex():
        got, want = (
            torch.view_as_real(got.to(torch.complex128)),
            torch.view_as_real(want.to(torch.complex128)),
        )
    atol, rtol = _tolerances(got, atol, rtol)
    integers = not (got.dtype.is_floating_point or want.dtype.is_floating_point)
    a = got.detach().to(torch.int64 if integers else torch.float64)
    b = want.detach().to(torch.int64 if integers else torch.float64)
    if exact or integers:
        bad = (a != b) & ~(torch.isnan(a) & torch.isnan(b)) if not integers else a != b
    else:
        bad = ~torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if not bool(bad.any()):
        return None

    nan = torch.isnan(a) & ~torch.isnan(b) if not integers else torch.zeros_like(bad)
    if bool(nan.any()):
        at = patterns.first(nan)
        count = int(nan.sum())
        return Difference(
            f"{_cap(subject)} is NaN{_at(at, axes)}, expected {number(b[at])} "
            f"({_count(count, nan.numel())} NaN). A NaN comes from 0/0, inf - inf, inf * 0, the "
            "root of a negative number, or a softmax over a row that is masked everywhere.",
            "nan",
        )

    at = patterns.first(bad)
    gave, expected = number(a[at]), number(b[at])
    words = f"{_cap(subject)} differs{_at(at, axes)}: you gave {gave}, expected {expected}."
    if a.dim() == 0:
        words = f"{_cap(subject)} is {gave}, expected {expected}."
    details = []
    if a.numel() > 1:
        details.append(f"{_cap(_count(int(bad.sum()), bad.numel()))} values differ.")
    details += agreement(bad, axes)
    key = "wrong-values"
    pattern = patterns.recognise(a.double(), b.double(), bad, axes, atol, rtol)
    if pattern is not None:
        key, like = pattern
        words = f"{words} {like}"
    return Difference(words, key, details)


def agreement(bad: Any, axes: Sequence[str]) -> list[str]:
    """Which slices along each axis agree: "head: 0 and 2 agree, 1 differs"."""
    said = []
    for axis in range(bad.dim()):
        size = bad.shape[axis]
        if bad.dim() < 2 or not 2 <= size <= 4096:
            continue
        others = [i for i in range(bad.dim()) if i != axis]
        differs = bad.amax(dim=others)
        count = int(differs.sum())
        if 0 < count < size:
            name = plural(axis_name(axis, axes))
            wrong = [i for i in range(size) if bool(differs[i])]
            right = [i for i in range(size) if not bool(differs[i])]
            said.append(f"{_cap(name)} {ranges(right)} agree; {ranges(wrong)} differ.")
    return said[:2]


# -- shapes ---------------------------------------------------------------------------------------


def _compare_shapes(
    got: tuple[int, ...], want: tuple[int, ...], axes: Sequence[str], subject: str
) -> Difference:
    words = (
        f"{_cap(subject)} should have shape {shape_words(want, axes)}; yours has shape {list(got)}."
    )
    if len(got) == len(want) and sorted(got) == sorted(want):
        words += " The sizes are right and their order is not: two axes are exchanged."
    elif len(got) == len(want):
        for axis, (g, w) in enumerate(zip(got, want, strict=True)):
            if g != w:
                words += f" The {axis_name(axis, axes)} axis has {g} entries and not {w}."
                break
    elif tuple(s for s in got if s != 1) == tuple(s for s in want if s != 1):
        more = len(got) > len(want)
        words += f" It has an axis of size 1 {'too many' if more else 'too few'}: look at keepdim, "
        words += "squeeze and unsqueeze."
    elif len(got) < len(want):
        gone = _missing_axis(got, want)
        if gone is not None:
            words += f" The {axis_name(gone, axes)} axis is missing: was it summed or indexed away?"
    return Difference(words, "wrong-shape")


def _missing_axis(got: tuple[int, ...], want: tuple[int, ...]) -> int | None:
    for axis in range(len(want)):
        if want[:axis] + want[axis + 1 :] == got:
            return axis
    return None


# -- plain Python values ---------------------------------------------------------------------------


def _compare_plain(
    got: Any,
    want: Any,
    axes: Sequence[str],
    atol: float | None,
    rtol: float | None,
    subject: str,
    exact: bool,
) -> Difference | None:
    import torch

    if isinstance(got, torch.Tensor) and isinstance(want, (bool, int, float)) and got.dim():
        return Difference(
            f"{_cap(subject)} should be one number; you gave a tensor of shape {list(got.shape)}.",
            "wrong-type",
        )
    if isinstance(want, (bool, int, float)) and isinstance(got, (bool, int, float, torch.Tensor)):
        a = torch.as_tensor(got, dtype=None if exact else torch.float64)
        b = torch.as_tensor(want, dtype=None if exact else torch.float64)
        return _compare_values(
            a,
            b,
            axes,
            1e-12 if atol is None else atol,
            1e-6 if rtol is None else rtol,
            subject,
            exact,
        )
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        return _compare_lists(got, want, axes, atol, rtol, subject, exact)
    if isinstance(want, (list, tuple)) and isinstance(got, torch.Tensor):
        return Difference(
            f"{_cap(subject)} should be a {type(want).__name__}; you gave {brief(got)}.",
            "wrong-type",
        )
    if type(got) is not type(want) and not _like(got, want):
        return Difference(
            f"{_cap(subject)} should be {brief(want)} ({type(want).__name__}); you gave "
            f"{brief(got)} ({type(got).__name__}).",
            "wrong-type",
        )
    if got == want:
        return None
    return Difference(f"{_cap(subject)} is {brief(got)}, expected {brief(want)}.", "wrong-values")


def _like(got: Any, want: Any) -> bool:
    """numpy's numbers count as numbers."""
    try:
        return bool(got == want) and isinstance(want, (int, float))
    except Exception:
        return False


def _compare_lists(
    got: Sequence[Any],
    want: Sequence[Any],
    axes: Sequence[str],
    atol: float | None,
    rtol: float | None,
    subject: str,
    exact: bool,
) -> Difference | None:
    name = axis_name(0, axes)
    for i, (g, w) in enumerate(zip(got, want, strict=False)):
        found = compare(g, w, axes[1:], atol, rtol, None, f"{name} {i} of {subject}", exact)
        if found is not None:
            shown = f"You gave {brief(list(got))}, expected {brief(list(want))}."
            return Difference(found.words, found.key, [*found.details, shown])
    if len(got) == len(want):
        return None
    more = "many" if len(got) > len(want) else "few"
    return Difference(
        f"{_cap(subject)} has {len(got)} {plural(name)}, expected {len(want)}: "
        f"{abs(len(got) - len(want))} too {more}.",
        "wrong-length",
        [f"You gave {brief(list(got))}, expected {brief(list(want))}."],
    )


# -- words ----------------------------------------------------------------------------------------


def same_bits(a: Any, b: Any) -> bool:
    """Equal element by element, NaN equal to itself."""
    import torch

    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all()) if a.numel() else torch.equal(a, b)


def axis_name(axis: int, axes: Sequence[str]) -> str:
    return axes[axis] if axis < len(axes) else "index" if not axes else f"axis-{axis} index"


def plural(name: str) -> str:
    if name.endswith("index"):
        return name + "es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name if name.endswith("s") else name + "s"


def shape_words(shape: Sequence[int], axes: Sequence[str]) -> str:
    """`[5 tokens, 3 heads, 64 features]`, or `[5, 3, 64]` where the axes have no names."""
    if len(axes) < len(shape):
        return str(list(shape))
    named = [f"{n} {plural(a) if n != 1 else a}" for n, a in zip(shape, axes, strict=False)]
    return "[" + ", ".join(named) + "]"


def ranges(indexes: Sequence[int]) -> str:
    """`[0, 1, 2, 7]` as `0–2 and 7`; a long list is cut short."""
    parts: list[str] = []
    i = 0
    while i < len(indexes):
        j = i
        while j + 1 < len(indexes) and indexes[j + 1] == indexes[j] + 1:
            j += 1
        if j - i >= 2:
            parts.append(f"{indexes[i]}–{indexes[j]}")
        else:
            parts += [str(indexes[k]) for k in range(i, j + 1)]
        i = j + 1
    if len(parts) > 6:
        return ", ".join(parts[:5]) + f" and {len(parts) - 5} more"
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def number(value: Any) -> str:
    """A value as a learner wants to read it: 4 significant digits, more for integers."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return f"{value:.1f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def brief(value: Any) -> str:
    """A short description of any value."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.numel() <= 6 and value.dim() <= 1:
            shown = ", ".join(number(v) for v in value.flatten())
            return f"tensor([{shown}])" if value.dim() else f"tensor({shown})"
        return f"a tensor of shape {list(value.shape)}, {_dtype(value.dtype)}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    text = repr(value)
    return text if len(text) <= 120 else text[:110] + " …" + text[-1]


def _at(at: tuple[int, ...], axes: Sequence[str]) -> str:
    """` at token 3, head 1`, or nothing for a single number."""
    if not at:
        return ""
    if len(axes) < len(at):
        return f" at index {list(at)}"
    return " at " + ", ".join(f"{axes[i]} {n}" for i, n in enumerate(at))


def _count(count: int, total: int) -> str:
    if count == total:
        return "all of the" if total > 2 else "all"
    return f"{count:,} of the {total:,}"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _dtype(dtype: Any) -> str:
    return str(dtype)
