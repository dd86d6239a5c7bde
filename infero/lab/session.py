"""What a notebook calls: `start`, `check`, `engine`, `finish`.

`check` takes the text of the exercise cell just run, examines it, and in learn mode saves and
installs a piece that passes; one that fails leaves the engine as it was. Either way the notebook's
own name then means a function that works, the learner's or the reference, so that the cells below
run.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from infero.lab import cells, examine, folder, mode, pieces, swap
from infero.lab.checking import Mistake
from infero.lab.examine import CheckFailed, Outcome
from infero.lab.pieces import Piece
from infero.lab.render import Card, Table

KV_BYTES = 1 << 30  # of a lab's engine: a notebook needs the rest of the GPU for itself

_lab: str | None = None
_engines: dict[tuple[Any, ...], Any] = {}


def forget() -> None:
    """Drop the lab that was started and the engines built (for tests)."""
    global _lab
    _lab = None
    _engines.clear()


# -- start ----------------------------------------------------------------------------------------


def start(lab: str | int) -> None:
    """Open a lab: show its mode, device and budget, and put the learner's saved pieces to work."""
    global _lab
    row = pieces.lab(lab)
    how = mode.current()
    cells.register()
    lines: list[str | Table] = [_MODES[how], f"Device: {device_words()}.", budget_words(row.number)]
    if how == "learn":
        lines += swap.install_mine()
        lines.append(f"Your folder: `{folder.locate().as_posix()}`.")
        lines += [text for text in (folder.lasting(), _news(row.stem)) if text]
    elif swap.uninstall():
        lines.append("The engine runs its own pieces.")
    _lab = row.number
    Card("info", f"Lab {int(row.number)}: {row.title}", lines).show()


_MODES = {
    "learn": "Mode: learn. What you write and what passes its check becomes part of the engine.",
    "solutions": "Mode: solutions. Every exercise cell stands for the engine's own function.",
    "grade": "Mode: grade. A failed check is an error; nothing of yours is saved.",
}


def device_words() -> str:
    """The machine in a few words."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return f"{torch.cuda.get_device_name(0)}, {memory / 2**30:.0f} GiB"
    from infero.provenance import cpu_name

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU, {cpu_name()}, {cores} cores, no GPU"


def budget_words(lab: str) -> str:
    """What the lab costs, from the measurement of all labs where there is one."""
    row = pieces.lab(lab)
    text = f"Budget: {row.minutes} minutes of yours; "
    from infero.lab import evidence

    found = {
        what: evidence.optional(f"*/labs/lab{row.number}_{what}") for what in ("time", "memory")
    }
    download = evidence.optional(f"*/labs/lab{row.number}_download")
    if found["time"] is None:
        return text + "run time and memory are not measured yet."
    seconds, memory = found["time"], found["memory"]
    text += f"solved, it runs in {evidence.quantity(seconds.value, 's')}"
    if memory is not None:
        text += f" and {evidence.quantity(memory.value, 'byte')} of memory"
    if download is not None:
        text += f"; the model, fetched once, is {evidence.quantity(download.value, 'byte')}"
    return text + f" ({seconds.label})."


def _news(stem: str) -> str:
    from infero.lab import workspace

    return workspace.news(stem)


# -- check ----------------------------------------------------------------------------------------


def check(function: Callable[..., Any] | str) -> None:
    """Check the exercise that `function` is for; see the module's text for what follows."""
    try:
        piece = _piece_of(function)
    except pieces.UnknownPiece as error:
        if mode.current() != "learn":
            raise
        Card("warning", "", [str(error)]).show()
        return
    if mode.current() == "solutions":
        outcome = examine.reference(piece)
        if not outcome.passed:
            raise CheckFailed(card(outcome).plain())
        Card("passed", _title(piece), ["The engine's own function passes its check."]).show()
        return
    text = cells.recorded(piece.name)
    if text is None:
        words = (
            f"I have not seen the exercise cell of `{piece.attribute}`. It opens with the line\n"
            f"    #| exercise: {piece.name}\n"
            "Put that line back if it is gone, run the lab's first cell, run the exercise cell, "
            "and then this one."
        )
        outcome = Outcome(piece, Mistake(words, "no-cell"))
    else:
        outcome = examine.text(piece, text)
    if mode.current() == "grade":
        if not outcome.passed:
            raise CheckFailed(card(outcome).plain())
        assert outcome.candidate is not None
        _rebind(piece, outcome.candidate.function)
        card(outcome).show()
        return
    card(outcome, _passed(outcome, text or "") if outcome.passed else _failed(outcome)).show()
    other = _not_the_cell(outcome, function)
    if other:
        Card("warning", "", [other]).show()


def _title(piece: Piece) -> str:
    return f"{piece.label}: `{piece.attribute}`"


def card(outcome: Outcome, more: list[str] | None = None) -> Card:
    """The outcome of a check as a card."""
    mistake = outcome.mistake
    if mistake is None:
        return Card("passed", _title(outcome.piece), more or [])
    if mistake.key == "unfinished":
        words = [f"Write `{outcome.piece.attribute}` in the cell above, run it, and run this cell."]
        return Card("unfinished", _title(outcome.piece), words + (more or []))
    return Card("failed", _title(outcome.piece), [mistake.words, *mistake.details, *(more or [])])


def _passed(outcome: Outcome, text: str) -> list[str]:
    """Save and install; what was done, in words."""
    from infero.lab import saved

    piece = outcome.piece
    try:
        section = saved.keep(piece, text, outcome.speed)
        function = saved.load(piece, section).function
        where = f"Saved in `{folder.shown(section.path)}`"
    except OSError as error:
        assert outcome.candidate is not None
        function = outcome.candidate.function
        where = (
            f"It could not be saved ({error.strerror or error}; set INFERO_MINE to another folder)"
        )
    swap.install(piece.name, function, text)
    # The notebook's own function lacks the imports that the module has: use the one that passed.
    _rebind(piece, function)
    os.environ["INFERO_PIECES"] = "mine"
    os.environ["INFERO_MINE"] = str(folder.locate())
    return [
        f"{where} and installed: the engine now runs yours. {speed_words(outcome.speed)}".strip()
    ]


def speed_words(speed: float | None) -> str:
    """The speed against the reference, in words."""
    if not speed:
        return ""
    if 0.8 <= speed <= 1.25:
        return "It is as fast as the reference."
    if speed > 1:
        return f"It is {speed:.1f} times as fast as the reference."
    return f"It takes {1 / speed:.1f} times the time of the reference."


def _failed(outcome: Outcome) -> list[str]:
    """Give the notebook the reference to go on with; what stays, in words."""
    from infero.lab import saved

    piece = outcome.piece
    assert outcome.mistake is not None
    if outcome.mistake.key not in ("unfinished", "no-cell"):
        try:
            saved.note_failed(piece, outcome.mistake)
        except OSError:
            pass
    _rebind(piece, swap.reference(piece.name))
    stays = "the one of yours that passed before" if swap.installed(piece.name) else "its own"
    return [f"Meanwhile the cells below use the reference, and the engine runs {stays}."]


def _rebind(piece: Piece, function: Callable[..., Any]) -> None:
    """Let the notebook's name of a piece mean `function`."""
    ip = cells.shell()
    if ip is not None:
        ip.user_ns[piece.attribute] = function


def _piece_of(function: Callable[..., Any] | str) -> Piece:
    """The piece that a function of the notebook is meant to be."""
    if isinstance(function, str):
        return _named(function)
    name = getattr(function, "__name__", type(function).__name__)
    cell = cells.latest(name)
    if cell is not None:
        return pieces.find(cell)
    home = f"{getattr(function, '__module__', '')}.{name}"  # the engine's own says where it lives
    return _named(home if any(piece.name == home for piece in pieces.PIECES) else name)


def _named(name: str) -> Piece:
    """The piece of this name; a short one means this lab's, where several labs have it."""
    in_lab = [piece for piece in pieces.PIECES if piece.attribute == name and piece.lab == _lab]
    return in_lab[0] if in_lab else pieces.find(name)


def _not_the_cell(outcome: Outcome, function: Any) -> str:
    """A warning where the notebook's function is not the one of the exercise cell."""
    if outcome.candidate is None or not outcome.passed:
        return ""
    mine, theirs = getattr(function, "__code__", None), outcome.candidate.function.__code__
    if mine is None or function is swap.reference(outcome.piece.name):
        return ""
    # The bytecode itself depends on whether the compiler saw the imports; names and numbers do not.
    if all(_plain(mine, part) == _plain(theirs, part) for part in ("names", "varnames", "consts")):
        return ""
    return (
        f"The check read the exercise cell, but `{outcome.piece.attribute}` in this notebook was "
        "another function. The name now means the one of the exercise cell."
    )


def _plain(code: Any, part: str) -> list[str]:
    return [repr(v) for v in getattr(code, f"co_{part}") if not hasattr(v, "co_code")]


def uninstall(name: str | None = None) -> None:
    """Put the engine's own function back in the place of one piece, or of all (files stay)."""
    names = swap.uninstall(_named(name).name if name else None)
    what = ", ".join(names) if names else "nothing was yours"
    Card("info", "Back to the reference", [f"{what}."]).show()


# -- the engine -----------------------------------------------------------------------------------


def engine(*args: Any, **kwargs: Any) -> Any:
    """An `infero.LLM` with the pieces installed now; the same one until a piece changes."""
    llm = importlib.import_module("infero.llm")
    if kwargs.get("paged", True) and kwargs.get("use_cache", True) and "num_blocks" not in kwargs:
        kwargs.setdefault("kv_memory_bytes", KV_BYTES)
    key = (swap.generation(), repr(args), repr(sorted(kwargs.items())))
    if key not in _engines:
        model = next((kept.model for k, kept in _engines.items() if k[1:] == key[1:]), None)
        _engines.clear()
        if model is not None and not args and "model" not in kwargs:
            _engines[key] = llm.LLM(model, **_without(kwargs, "dtype", "device"))
        else:
            _engines[key] = llm.LLM(*args, **kwargs)
    return _engines[key]


def _without(kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key not in names}


def finish(prompt: str = "The capital of France is", max_tokens: int = 16) -> None:
    """Close a lab: run the engine once and list the pieces of the lab."""
    from infero.lab import report
    from infero.sampling import SamplingParams

    output = engine().generate(prompt, SamplingParams(temperature=0.0, max_tokens=max_tokens))[0]
    rows = [row for row in report.rows() if _lab is None or row.piece.lab == _lab]
    mine = sum(row.whose == "yours" for row in rows)
    if mode.current() == "learn":
        count = f"{mine} of this lab's {len(rows)} pieces are yours."
    else:
        count = f"This lab's {len(rows)} pieces are the reference."
    table = Table(
        ("Exercise", "Piece", "Whose"),
        [(r.piece.exercise, f"`{r.piece.name}`", r.whose) for r in rows],
    )
    said = f"The engine continues “{prompt}” with:\n    {output.text.strip()}".replace("\n\n", "\n")
    Card("info", "What you built", [said, count, table]).show()
