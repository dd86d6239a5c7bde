"""Run a check: one candidate, its piece's check, every other piece the reference.

The labs, `infero check`, `--mine` and the tests of planted wrong answers all come through here.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from infero.lab import candidate, mode, rehearsal, swap, triton_cells
from infero.lab.candidate import Candidate
from infero.lab.checking import AnswerKeyCalled, Check, Mistake, seed_of_grading
from infero.lab.pieces import Piece
from infero.lab.tripwire import Tripwire, copy_of

#: seconds after which a check is stopped; one that passes takes about 0.1
LIMIT_S = 20.0


@dataclass
class Outcome:
    """What a check found. `speed` is the reference's time over the candidate's, None if untimed."""

    piece: Piece
    mistake: Mistake | None
    candidate: Candidate | None = None
    seconds: float = 0.0
    speed: float | None = None

    @property
    def passed(self) -> bool:
        return self.mistake is None


class CheckFailed(AssertionError):
    """A failed check in solutions and grade mode."""


def text(piece: Piece, cell_text: str) -> Outcome:
    """Check the text of an exercise cell."""
    if rehearsal.needed(piece):
        mistake = rehearsal.rehearse(piece, cell_text)
        if mistake is not None:
            return Outcome(piece, mistake)
    return _examine(piece, lambda: candidate.load(piece, cell_text))


def loaded(piece: Piece, load: Callable[[], Candidate]) -> Outcome:
    """Check a candidate that `load` makes (from a saved file)."""
    return _examine(piece, load)


def reference(piece: Piece) -> Outcome:
    """Check the reference itself: what `lab.check` does in solutions mode."""
    twin = copy_of(swap.reference(piece.name))
    check = Check(piece.name, twin, twin)
    start = time.perf_counter()
    mistake = _run(piece, check)
    return Outcome(piece, mistake, None, time.perf_counter() - start)


def _examine(piece: Piece, load: Callable[[], Candidate]) -> Outcome:
    import torch

    original = swap.reference(piece.name)
    twin = copy_of(original)
    wire = Tripwire(piece.name, original)
    found: Candidate | None = None
    mistake: Mistake | None = None
    check: Check | None = None
    start = time.perf_counter()
    with swap.references_only(), torch.random.fork_rng(devices=[]):
        try:
            with wire:
                found = load()
            candidate.check_signature(piece, found.function, original)
            seed = seed_of_grading() if mode.current() == "grade" else None
            check = Check(piece.name, found.function, twin, wire, found.cell, seed)
        except Mistake as error:
            mistake = error
        except AnswerKeyCalled as error:
            mistake = Mistake(f"{error}.", "answer-key")
        if check is not None:
            mistake = _run(piece, check)
        seconds = time.perf_counter() - start
        speed = _speed(check, twin) if check is not None and mistake is None else None
    return Outcome(piece, mistake, found, seconds, speed)


def _run(piece: Piece, check: Check) -> Mistake | None:
    module, _, function = piece.check.partition(":")
    run = getattr(importlib.import_module(module), function)
    try:
        with _time_limit():
            run(check)
    except Mistake as mistake:
        return mistake
    except _TooLong:
        return Mistake(
            f"The check was stopped after {LIMIT_S:.0f} s: does a loop in your code never end?",
            "endless",
        )
    return None


class _TooLong(BaseException):
    pass


@contextmanager
def _time_limit() -> Iterator[None]:
    """Interrupt the main thread after LIMIT_S seconds, where the system can."""
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        with nullcontext():
            yield
        return

    def stop(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _speed(check: Check, twin: Callable[..., Any]) -> float | None:
    """The reference's time over the candidate's on the check's largest input, best of a few."""
    import torch

    if check.sample is None:
        return None
    args, kwargs = check.sample
    if any(callable(value) for value in (*args, *kwargs.values())):
        return None
    on_gpu = any(isinstance(value, torch.Tensor) and value.is_cuda for value in args)
    if not on_gpu and triton_cells.used_by(twin):  # interpreted: no time worth telling
        return None

    def best(function: Callable[..., Any]) -> float:
        times: list[float] = []
        end = time.perf_counter() + 0.01
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 50):
            start = time.perf_counter()
            function(*args, **kwargs)
            if on_gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times)

    try:
        with torch.no_grad():
            return best(twin) / max(best(check.candidate), 1e-9)
    except Exception:
        return None
