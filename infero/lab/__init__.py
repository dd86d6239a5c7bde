"""What the labs import: `from infero import lab`.

Importing it inside IPython registers the transformer that knows exercise cells (`cells.py`);
outside IPython that does nothing. Everything else is loaded when it is first used, so that the
table of pieces can be read without torch. Chapter 1's lab introduces the calls.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from infero.lab import cells

if TYPE_CHECKING:
    from infero.lab.evidence import measure, predict, reconcile, result
    from infero.lab.session import check, engine, finish, start, uninstall
    from infero.lab.swap import install_mine
    from infero.lab.transfer import export, import_
    from infero.lab.workspace import copy_labs

_WHERE = {
    "start": "session",
    "check": "session",
    "engine": "session",
    "finish": "session",
    "uninstall": "session",
    "predict": "evidence",
    "measure": "evidence",
    "result": "evidence",
    "reconcile": "evidence",
    "export": "transfer",
    "import_": "transfer",
    "install_mine": "swap",
    "copy_labs": "workspace",
}

__all__ = [
    "check",
    "copy_labs",
    "engine",
    "export",
    "finish",
    "import_",
    "install_mine",
    "measure",
    "predict",
    "reconcile",
    "result",
    "start",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__


cells.register()
