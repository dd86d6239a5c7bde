"""The one switch of the labs: `INFERO_LAB=learn|solutions|grade`, learn when unset.

It is read once, when the labs are first used, so that a cell which changes the environment later
changes nothing.
"""

from __future__ import annotations

import os

MODES = ("learn", "solutions", "grade")
_mode: str | None = None


def current() -> str:
    """The mode of this process."""
    global _mode
    if _mode is None:
        value = os.environ.get("INFERO_LAB", "").strip().lower() or "learn"
        if value not in MODES:
            raise ValueError(
                f"INFERO_LAB={value!r} is not a mode: set it to learn (the default), solutions or "
                "grade, and restart the kernel"
            )
        _mode = value
    return _mode


def forget() -> None:
    """Read the environment again at the next use (for tests)."""
    global _mode
    _mode = None
