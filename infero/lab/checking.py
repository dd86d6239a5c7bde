"""What a check of an exercise is written with: `Check`, `Mistake` and the rest.

A check is a function of one `Check`. It feeds the candidate random inputs through `c.call`,
compares what comes back with an oracle through `c.expect_close` or `c.expect_equal`, and returns
None when all is well. Anything wrong leaves as a `Mistake`, whose words are meant for the learner
and whose key is meant for tests and graders. `comparing.py` finds the words for two tensors that
differ.
"""

from __future__ import annotations

import os
import random
import secrets
import traceback
import types
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from infero.lab import comparing

Known = Mapping[str, tuple[str, Any]]


class Mistake(Exception):
    """Something the candidate does wrong: words for the learner, `key` for tests and graders."""

    def __init__(self, words: str, key: str = "wrong", details: Sequence[str] = ()) -> None:
        super().__init__(words)
        self.words = words
        self.key = key
        self.details = list(details)


class Unfinished(Mistake):
    """The exercise is not written yet."""

    def __init__(
        self, words: str = "Not written yet: the cell still raises NotImplementedError."
    ) -> None:
        super().__init__(words, key="unfinished")


class AnswerKeyCalled(Exception):
    """Raised by the tripwire inside the learner's code."""


@dataclass
class Cell:
    """Where the candidate's text lies: line `first_line` of the file is line 1 of the cell."""

    path: Path
    first_line: int
    text: str
    where: str = "your cell"

    def line(self, number: int) -> tuple[int, str]:
        """Line `number` of the file as the learner counts it, and its text."""
        inside = number - self.first_line + 1
        lines = self.text.splitlines()
        return inside, lines[inside - 1].strip() if 0 < inside <= len(lines) else ""


@dataclass
class Check:
    """One check of one candidate.

    `reference` is the finished function (a copy that the tripwire does not touch); `guard()` is
    held while the learner's code runs.
    """

    name: str
    candidate: Callable[..., Any]
    reference: Callable[..., Any]
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext
    cell: Cell | None = None
    grade_seed: int | None = None
    #: arguments of the largest call so far, from which the speed is measured
    sample: tuple[tuple[Any, ...], dict[str, Any]] | None = field(default=None, repr=False)
    _sample_size: int = field(default=-1, repr=False)

    # -- inputs ---------------------------------------------------------------------------------

    def seeds(self, n: int) -> list[int]:
        """`n` seeds: always the same ones for a learner, secret ones when graded."""
        if self.grade_seed is None:
            first = zlib.crc32(self.name.encode()) % 1_000_000
            return [first + i for i in range(n)]
        picker = random.Random(f"{self.grade_seed}:{self.name}")
        return [picker.randrange(2**31) for _ in range(n)]

    def generator(self, seed: int) -> Any:
        """A `torch.Generator` on the CPU with this seed."""
        import torch

        return torch.Generator().manual_seed(seed)

    # -- the candidate --------------------------------------------------------------------------

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the candidate. Its exceptions become mistakes, and so does a changed input.

        A generator comes back as one that reports mistakes in the same way while it is consumed.
        """
        before = _tensors((args, kwargs))
        kept = [(label, tensor, tensor.clone()) for label, tensor in before]
        result = self._guarded(lambda: self.candidate(*args, **kwargs), args, kwargs)
        if isinstance(result, types.GeneratorType):
            return self._steps(result, args, kwargs, kept)
        self._unchanged(kept)
        size = sum(tensor.numel() for _, tensor in before)
        if size > self._sample_size:
            self._sample_size = size
            self.sample = (args, kwargs)
        return result

    def call_in_place(self, *args: Any) -> Any:
        """Run a candidate whose task is to write into its first argument; others must stay."""
        kept = [(at, t, t.clone()) for at, t in _tensors((args, {})) if at != "0"]
        result = self._guarded(lambda: self.candidate(*args), args, {})
        self._unchanged(kept)
        return result

    def _steps(self, steps: Iterator[Any], args: Any, kwargs: Any, kept: Any) -> Iterator[Any]:
        end = object()
        while True:
            value = self._guarded(lambda: next(steps, end), args, kwargs)
            if value is end:
                self._unchanged(kept)
                return
            yield value

    def _guarded(self, run: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        import torch

        try:
            with self.guard(), torch.no_grad():
                return run()
        except Mistake:
            raise
        except Exception as error:
            raise self.explain(error, args, kwargs) from error

    def explain(self, error: BaseException, args: Any = (), kwargs: Any = None) -> Mistake:
        """The mistake that an exception of the candidate amounts to, with the learner's own "
        "line."""
        from infero.lab import triton_cells

        outer, (error, key, meaning) = error, triton_cells.translate(error)
        place, line = self._place(error)
        if not line and self.cell is not None:
            place = triton_cells.compiled_line(outer, self.cell) or self._place(outer)[0]
        if isinstance(error, Mistake):
            where = f"{place.removesuffix('.')}\n" if place.strip(" .") else ""
            return Mistake(f"Stopped{where}{error.words}" if where else error.words, error.key)
        if isinstance(error, NotImplementedError) and _from_stub(error, line):
            return Unfinished()
        if isinstance(error, AnswerKeyCalled):
            return Mistake(f"{error}{place}", key="answer-key")
        words = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, TypeError) and not line and "argument" in str(error):
            words = f"Your function does not take the arguments of the exercise: {error}."
            return Mistake(words, key="signature")
        details = []
        if args or kwargs:
            shown = [
                f"{k} = {v}" for k, v in _describe_arguments(self.reference, args, kwargs or {})
            ]
            details = ["It was called with " + "; ".join(shown) + "."]
        if meaning:
            words = f"{words}\nThat is: {meaning}"
        return Mistake(f"Your code stopped with an error{place}\n{words}", key, details)

    def _place(self, error: BaseException) -> tuple[str, str]:
        """Where in the learner's cell an exception comes from, in words, and the text of the "
        "line."""
        if self.cell is None:
            return "", ""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.lineno is not None and frame.filename == str(self.cell.path):
                inside, text = self.cell.line(frame.lineno)
                return f" in line {inside} of {self.cell.where}:\n    {text}", text
        return ".", ""

    def _unchanged(self, kept: list[tuple[str, Any, Any]]) -> None:
        for label, now, then in kept:
            if not comparing.same_bits(now, then):
                name = _argument_name(self.reference, label)
                raise Mistake(
                    f"Your function changes its input `{name}`. The engine still needs the old "
                    "values: work on a new tensor (an operation that ends in _ or an assignment "
                    f"to a slice of `{name}` writes into it).",
                    key="mutates-input",
                )

    # -- expectations ---------------------------------------------------------------------------

    def expect(self, condition: Any, key: str, words: str) -> None:
        """Fail with `words` unless `condition` holds."""
        if not bool(condition):
            raise Mistake(words, key=key)

    def expect_close(
        self,
        got: Any,
        want: Any,
        *,
        axes: Sequence[str] = (),
        atol: float | None = None,
        rtol: float | None = None,
        dtype: Any = None,
        known: Known | None = None,
        what: str = "",
    ) -> None:
        """Fail unless `got` is `want` up to rounding.

        `want` is a tensor, a number or a nested list; `axes` names its axes in the singular
        ("token", "head"). The dtype must be `dtype`, else that of `want` unless `want` is float64
        (an oracle). `known` maps a key to (words, the wrong result that the mistake gives, or a
        function of no argument that makes it); the first that fits is named.
        """
        self._compare(got, want, axes, atol, rtol, dtype, known, what, exact=False)

    def expect_equal(
        self,
        got: Any,
        want: Any,
        *,
        axes: Sequence[str] = (),
        dtype: Any = None,
        known: Known | None = None,
        what: str = "",
    ) -> None:
        """Fail unless `got` equals `want` exactly: integers, booleans, lists of tokens, strings."""
        self._compare(got, want, axes, 0.0, 0.0, dtype, known, what, exact=True)

    def expect_raises(self, kind: type[Exception], *args: Any, key: str, words: str) -> None:
        """Fail with `words` unless the candidate raises `kind` for these arguments."""
        try:
            with self.guard():
                result = self.candidate(*args)
                if isinstance(result, types.GeneratorType):
                    list(result)
        except kind as error:
            if isinstance(error, NotImplementedError):
                raise Unfinished() from error
            return
        except Exception as error:
            raise self.explain(error, args, {}) from error
        raise Mistake(words, key=key)

    def _compare(
        self,
        got: Any,
        want: Any,
        axes: Sequence[str],
        atol: float | None,
        rtol: float | None,
        dtype: Any,
        known: Known | None,
        what: str,
        exact: bool,
    ) -> None:
        found = comparing.compare(got, want, axes, atol, rtol, dtype, what, exact)
        if found is None:
            return
        if found.key not in comparing.FORM:  # a wrong form is named before any known mistake
            for key, (words, wrong) in (known or {}).items():
                wrong = wrong() if callable(wrong) else wrong
                if comparing.compare(got, wrong, axes, atol, rtol, None, what, exact) is None:
                    raise Mistake(words, key=key, details=[found.words])
        raise Mistake(found.words, key=found.key, details=found.details)


# -- helpers --------------------------------------------------------------------------------------


def seed_of_grading() -> int:
    """The seed of grade mode: `INFERO_GRADE_SEED`, else a fresh secret one."""
    text = os.environ.get("INFERO_GRADE_SEED", "").strip()
    if not text:
        return secrets.randbits(64)
    try:
        return int(text)
    except ValueError:
        return zlib.crc32(text.encode())


def try_out(name: str, function: Callable[..., Any]) -> Mistake | None:
    """Run the check of piece `name` on a plain function: for writing and testing checks."""
    import importlib

    from infero.lab import pieces

    piece = pieces.find(name)
    module, _, attribute = piece.check.partition(":")
    check = getattr(importlib.import_module(module), attribute)
    reference = getattr(importlib.import_module(piece.module), piece.attribute)
    try:
        check(Check(piece.name, function, reference))
    except Mistake as mistake:
        return mistake
    return None


def _from_stub(error: BaseException, line: str) -> bool:
    return not line or "NotImplementedError" in line


def _tensors(value: Any, label: str = "") -> list[tuple[str, Any]]:
    """Every tensor inside nested arguments, each with the argument it came in."""
    import torch

    if isinstance(value, torch.Tensor):
        return [(label, value)]
    if isinstance(value, tuple) and not label and len(value) == 2 and isinstance(value[1], dict):
        found = [pair for i, item in enumerate(value[0]) for pair in _tensors(item, str(i))]
        return found + [pair for key, item in value[1].items() for pair in _tensors(item, key)]
    if isinstance(value, (list, tuple)):
        return [pair for item in value for pair in _tensors(item, label)]
    if isinstance(value, dict):
        return [pair for item in value.values() for pair in _tensors(item, label)]
    if is_dataclass(value) and not isinstance(value, type):
        return [pair for f in fields(value) for pair in _tensors(getattr(value, f.name), label)]
    return []


def _parameters(function: Callable[..., Any]) -> list[str]:
    code = getattr(function, "__code__", None)
    return list(code.co_varnames[: code.co_argcount]) if code else []


def _argument_name(reference: Callable[..., Any], label: str) -> str:
    names = _parameters(reference)
    return names[int(label)] if label.isdecimal() and int(label) < len(names) else label


def _describe_arguments(
    reference: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, str]]:
    pairs = [(_argument_name(reference, str(i)), value) for i, value in enumerate(args)]
    return [(name, comparing.brief(value)) for name, value in [*pairs, *kwargs.items()]]
