"""The swap: a learner's function in the place of the engine's.

A piece has three possible sources, and the first there is wins: the learner's function, a Triton
kernel, the PyTorch oracle. The engine's own function chooses between the last two; a learner's
function takes its place whole.

Engine code reaches a piece only as `module.name` at call time, so setting the module's attribute is
all there is to it. Installing counts a generation up, and an `LLM` built before refuses to step
after. A spawned process calls `reinstall()`, which reads the learner's folder again. Chapter 1's
lab is the first that uses it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from infero.lab import mode, pieces

Function = Callable[..., Any]


@dataclass(frozen=True)
class Installed:
    """A piece that is not the reference: the function, and a fingerprint of its text."""

    function: Function
    fingerprint: str
    captured: bool = False


_references: dict[str, Function] = {}
_installed: dict[str, Installed] = {}
_generation = 0


def generation() -> int:
    """Grows each time a piece is installed or removed."""
    return _generation


def fingerprint(text: str) -> str:
    """Identifies the text of a piece."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def reference(name: str) -> Function:
    """The engine's own function, whatever is installed."""
    if name not in _references:
        piece = pieces.find(name)
        module = importlib.import_module(piece.module)
        try:
            _references[name] = getattr(module, piece.attribute)
        except AttributeError:
            raise pieces.UnknownPiece(
                f"{piece.module} has no function {piece.attribute!r}, which the table of pieces "
                "names"
            ) from None
    return _references[name]


def installed(name: str) -> bool:
    """Whether the learner's function runs in the place of piece `name`."""
    return name in _installed


def uncaptured() -> list[str]:
    """Installed pieces that have not passed a capture check: the runner must not compile or
    capture a step that calls them, and names them when it falls back (chapter 16)."""
    return [name for name, entry in _installed.items() if not entry.captured]


def install(name: str, function: Function, text: str = "") -> None:
    """Put `function` in the place of piece `name`; the same text twice changes nothing."""
    reference(name)  # remember the engine's own before it is replaced
    print_of_text = fingerprint(text) if text else ""
    before = _installed.get(name)
    if before is not None and print_of_text and before.fingerprint == print_of_text:
        return
    _installed[name] = Installed(function, print_of_text)
    _place(name, function)
    _changed()


def uninstall(name: str | None = None) -> list[str]:
    """Put the reference back in the place of one piece, or of all; the names put back."""
    names = [name] if name is not None else list(_installed)
    back = [each for each in names if _installed.pop(each, None) is not None]
    for each in back:
        _place(each, reference(each))
    if back:
        _changed()
    return back


@contextmanager
def references_only() -> Iterator[None]:
    """Every piece is the reference inside; what was installed is back afterwards."""
    kept = dict(_installed)
    for name in kept:
        _place(name, reference(name))
    try:
        yield
    finally:
        for name, entry in kept.items():
            _place(name, entry.function)


def _place(name: str, function: Function) -> None:
    piece = pieces.find(name)
    setattr(importlib.import_module(piece.module), piece.attribute, function)


def _changed() -> None:
    global _generation
    _generation += 1
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:  # something may have been compiled against the old function
        import torch

        torch.compiler.reset()


# -- the learner's folder -------------------------------------------------------------------------


def install_mine() -> list[str]:
    """Install every saved piece of the learner's folder; one line for each thing to know.

    A piece of another contract is skipped. One edited since its last check is checked again; if it
    fails, the version that passed last is used, or else the engine's own.
    """
    if mode.current() != "learn":
        return [f"INFERO_LAB={mode.current()}: saved pieces are read in learn mode only."]
    from infero.lab import saved

    lines, used = [], []
    for entry in saved.usable():
        if entry.candidate is not None:
            install(entry.name, entry.candidate.function, entry.text)
            used.append(entry.name)
        elif installed(entry.name):
            uninstall(entry.name)
        if entry.words:
            lines.append(entry.words)
    if used:
        from infero.lab import folder

        os.environ["INFERO_PIECES"] = "mine"
        os.environ["INFERO_MINE"] = str(folder.locate())
        lines.insert(0, f"Yours: {', '.join(used)}.")
    else:
        lines.insert(0, "No saved piece of yours is in use: the engine runs its own.")
    return lines


def reinstall() -> list[str]:
    """What a spawned rank, replica or server calls first: as in the process that started it."""
    return install_mine() if os.environ.get("INFERO_PIECES") == "mine" else []
