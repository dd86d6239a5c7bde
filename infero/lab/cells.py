"""Exercise cells: how a lab's notebook stays free of solutions and still runs.

An exercise cell is plain Python that opens with `#| exercise: infero.model.rms_norm`. A transformer
of IPython's input (`input_transformers_cleanup`) sees each executed cell as text. In solutions mode
it turns an exercise cell into `from infero.model import rms_norm`; otherwise it leaves the cell
alone and keeps its text, because `lab.check` checks what was typed. `inspect.getsource` is never
used: it fails on classes of a notebook and on interpreted Triton kernels.
"""

from __future__ import annotations

import re
from typing import Any

from infero.lab import mode

_MARK = re.compile(r"^#\|\s*exercise:\s*([A-Za-z_][\w.]*)\s*$")

#: text of the last executed exercise cell of each piece, newest last
_recorded: dict[str, str] = {}


def exercise_of(text: str) -> str | None:
    """The piece an exercise cell is for, or None for any other cell.

    The mark stands in the comments that open the cell.
    """
    for line in text.splitlines():
        found = _MARK.match(line)
        if found:
            return found.group(1)
        if line.strip() and not line.lstrip().startswith("#"):
            return None
    return None


def record(name: str, text: str) -> None:
    """Keep the text of the exercise cell of piece `name`."""
    _recorded.pop(name, None)
    _recorded[name] = text


def recorded(name: str) -> str | None:
    """The text last executed for piece `name`."""
    return _recorded.get(name)


def latest(attribute: str) -> str | None:
    """The piece whose exercise cell ran last among those whose function is called `attribute`."""
    for name in reversed(_recorded):
        if name.rpartition(".")[2] == attribute:
            return name
    return None


def forget() -> None:
    """Drop every recorded cell (for tests)."""
    _recorded.clear()


def transform(lines: list[str]) -> list[str]:
    """IPython's hook: the lines of a cell in, the lines to run out."""
    name = exercise_of("".join(lines))
    if name is None:
        return lines
    if mode.current() == "solutions":
        module, _, attribute = name.rpartition(".")
        return [f"from {module} import {attribute}\n"]
    record(name, "".join(lines))
    return lines


def shell() -> Any:
    """The running IPython shell, or None in plain Python."""
    import sys

    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()


def register() -> bool:
    """Add the transformer to the running IPython once; False where there is none."""
    ip = shell()
    if ip is None:
        return False
    hooks = ip.input_transformers_cleanup
    # A module imported twice (autoreload) must not leave two.
    hooks[:] = [hook for hook in hooks if getattr(hook, "__module__", "") != __name__]
    hooks.append(transform)
    return True
