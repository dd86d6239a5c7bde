"""Capture and replay on any device: what a CUDA graph does, small enough to read.

`capture` runs a function once and records every tensor operation with the very tensors it used;
`replay` is an exercise of Lab 16. Python is not recorded, and so a branch, a loop count or a number
read by the host stay what they were at capture: chapter 16 shows what that means for an engine. A
real graph stores kernels and addresses in place of operations and tensors, and is replayed by the
device without the host (CUDA C++ Programming Guide, "CUDA Graphs").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Call:
    """One recorded operation: what was called, with which tensors, and what it wrote."""

    op: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[Tensor]  # the recorded tensors; later calls read these

    @property
    def name(self) -> str:
        return str(self.op)

    @property
    def moves_no_data(self) -> bool:
        """Whether the result is another look at the same memory: such a call launches nothing."""
        memory = [t.untyped_storage().data_ptr() for t in tree_leaves((self.args, self.kwargs))
                  if isinstance(t, Tensor)]
        schema = getattr(self.op, "_schema", None)
        return (bool(self.results) and not (schema is not None and schema.is_mutable)
                and all(r.untyped_storage().data_ptr() in memory for r in self.results))


@dataclass
class Tape:
    """What `capture` recorded. `inputs` and `outputs` keep their places in memory for ever."""

    inputs: list[Tensor]
    outputs: Tensor
    calls: list[Call] = field(default_factory=list)

    @property
    def launches(self) -> int:
        """Calls that compute or copy something; views cost nothing on the device."""
        return sum(not call.moves_no_data for call in self.calls)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kept = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        self.calls.append(Call(func, tuple(args), dict(kwargs or {}), kept))
        return result


def capture(function: Callable[..., Tensor], *inputs: Tensor) -> Tape:
    """Run function(*inputs) once and record its operations on copies of these inputs.

    The function must return one tensor. What it does on the host is lost: only calls on tensors are
    on the tape.
    """
    fixed = [t.clone() for t in inputs]
    with torch.no_grad(), _Recorder() as recorder:
        outputs = function(*fixed)
    return Tape(fixed, outputs, recorder.calls)


def run(call: Call) -> list[Tensor]:
    """Carry out one recorded operation again: its results, in tensors that may be new."""
    with torch.no_grad():
        fresh = call.op(*call.args, **call.kwargs)
    return [t for t in tree_leaves(fresh) if isinstance(t, Tensor)]


def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    """Run a tape on new inputs, and return tape.outputs with the new result in it.

    The new values are copied into tape.inputs, because the recorded calls read from there. Then
    every call is carried out in order by run(call), and what it gives is copied into call.results,
    because later calls read from those. Nothing moves: the same tensors are used in every replay.
    Raises ValueError if the shape of an input is not that of its place.
    """
    for place, new in zip(tape.inputs, inputs, strict=True):
        if new.shape != place.shape:
            raise ValueError(f"an input has shape {tuple(new.shape)}, but the tape was captured "
                             f"with {tuple(place.shape)}: capture one for each shape.")
        place.copy_(new)
    for call in tape.calls:
        for place, fresh in zip(call.results, run(call), strict=True):
            place.copy_(fresh)
    return tape.outputs
