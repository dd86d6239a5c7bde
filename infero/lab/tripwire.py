"""The tripwire: while a piece is checked, its reference cannot be used as the answer.

For as long as the learner's code runs, the code of the reference function is replaced by code that
raises, so that every name it goes by fails alike: the module's attribute, a from-import made long
before, `swap.reference`, an entry found through `sys.modules`. The kernels that the reference
launches are out of reach as well. Other pieces are left alone.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from infero.lab import pieces, triton_cells
from infero.lab.checking import AnswerKeyCalled

_armed: list[Tripwire] = []


def spring(*args: Any, **kwargs: Any) -> Any:
    # This body runs inside the reference's own module: it must import what it needs.
    from infero.lab.tripwire import fire

    fire()


def fire() -> None:
    """Called in place of the reference."""
    wire = _armed[-1]
    wire.tripped = True
    raise AnswerKeyCalled(f"This calls the answer key: {wire.name} is what you are writing")


class Tripwire:
    """Context manager, entered each time the learner's code runs."""

    def __init__(self, name: str, reference: Callable[..., Any]) -> None:
        self.name = name
        self.module_name, _, self.attribute = name.rpartition(".")
        self.reference = reference
        others = {p.attribute for p in pieces.PIECES if p.module == self.module_name}
        self._kernels = triton_cells.used_by(reference, frozenset(others - {self.attribute}))
        self.tripped = False
        self._depth = 0

    def __call__(self) -> Tripwire:
        return self

    def __enter__(self) -> Tripwire:
        self._depth += 1
        if self._depth > 1:
            return self
        self._module = sys.modules[self.module_name]
        self._names = dict(vars(self._module))
        self._codes: list[tuple[types.FunctionType, types.CodeType]] = []
        function: Any = self.reference
        while isinstance(function, types.FunctionType):
            if not function.__code__.co_freevars:
                self._codes.append((function, function.__code__))
                function.__code__ = spring.__code__
            function = getattr(function, "__wrapped__", None)
        for kernel in self._kernels:  # neither launched, nor called, nor read by the compiler
            for way in ("run", "rewrite", "parse"):
                if hasattr(kernel, way):
                    setattr(kernel, way, spring)
        self._placed: Any = self.reference if self._codes else spring
        setattr(self._module, self.attribute, self._placed)
        _armed.append(self)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._depth -= 1
        if self._depth:
            return
        _armed.remove(self)
        for function, code in self._codes:
            function.__code__ = code
        for kernel in self._kernels:
            for way in ("run", "rewrite", "parse"):
                vars(kernel).pop(way, None)
        moved = sys.modules.get(self.module_name) is not self._module
        moved = moved or vars(self._module).get(self.attribute) is not self._placed
        sys.modules[self.module_name] = self._module
        if moved:  # a reload has made every class of the module anew: bring the old ones back
            vars(self._module).clear()
            vars(self._module).update(self._names)
        setattr(self._module, self.attribute, self.reference)
        package, _, last = self.module_name.rpartition(".")
        if package in sys.modules:
            setattr(sys.modules[package], last, self._module)
        if moved:
            self.tripped = True
        if self.tripped and not isinstance(error, AnswerKeyCalled):
            raise AnswerKeyCalled(
                f"This calls the answer key: {self.name} was reloaded or replaced"
                if moved
                else f"This calls the answer key: {self.name} is what you are writing"
            )


def copy_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the same code that the tripwire does not touch, for the check itself."""
    if not isinstance(function, types.FunctionType):
        return function
    twin = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__doc__ = function.__doc__
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        twin.__wrapped__ = copy_of(wrapped)  # type: ignore[attr-defined]
    return twin
