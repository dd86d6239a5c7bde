"""Run a Triton piece under a check: launches watched, memory marked and guarded.

`call(c, ...)` is what a check of a Triton piece uses in the place of `c.call`. It runs the wrapper
where kernels run (a GPU, or the CPU under Triton's interpreter), insists that a kernel of the
learner's own cell was launched, fills what `torch.empty` gives with marked NaN, so that elements
nobody wrote are told from wrong ones, and under the interpreter stops at the first lane that reads
or writes outside the tensor it was given. Chapter 13 explains the mistakes it names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infero.lab.checking import Mistake

if TYPE_CHECKING:
    from infero.lab.checking import Cell, Check

#: bit patterns of a NaN that no arithmetic makes: it marks what torch.empty gave
_MARK = {4: 0x7FC0DEAD, 2: 0x7FAD}


# -- running a candidate --------------------------------------------------------------------------


@dataclass
class Launch:
    """One launch: the kernel's name and file, and the grid."""

    name: str
    file: str
    grid: tuple[int, ...] = ()


@dataclass
class Watch:
    """What was seen while a candidate ran."""

    launches: list[Launch] = field(default_factory=list)
    #: of each tensor argument under the interpreter: made-up base, true base, tensor, its name
    arguments: list[tuple[int, int, Any, str]] = field(default_factory=list)
    padded: list[tuple[Any, Any]] = field(default_factory=list)
    running: bool = False
    stored: int = 0  # elements that kernels wrote, counted under the interpreter


def device() -> str:
    """Where kernels run here: "cuda", or "cpu" under the interpreter."""
    from infero.kernels import language

    language.need()
    return "cpu" if language.INTERPRETED else "cuda"


def call(c: Check, *args: Any, own_kernel: bool = True, **kwargs: Any) -> Any:
    """Run the candidate on these arguments, watched; tensors of the result come back on the CPU.

    Raises Mistake for the mistakes that only kernels make. `own_kernel=False` is for a piece that
    need not launch a kernel.
    """
    import torch

    where = device()
    moved = [_to(value, where) for value in args]
    named = {key: _to(value, where) for key, value in kwargs.items()}
    with watching() as watch:
        result = c.call(*moved, **named)
    if where == "cuda":
        torch.cuda.synchronize()
    _padding_kept(watch)
    if own_kernel and not any(_mine(c.cell, launch) for launch in watch.launches):
        raise Mistake(
            "The result was made without a kernel of yours: this exercise is about one. Write it "
            "in the exercise cell under `@triton.jit` and launch it from the function.",
            "no-kernel")
    tensors = [t for t in (result if isinstance(result, tuple) else (result,))
               if isinstance(t, torch.Tensor)]
    for tensor in tensors:
        _written(tensor)
    count = sum(tensor.numel() for tensor in tensors)
    if own_kernel and where == "cpu" and watch.stored < count:
        raise Mistake(
            f"Your kernel stored {watch.stored:,} numbers and the result has {count:,}: the rest "
            "was not made by a kernel.", "no-kernel")
    if isinstance(result, tuple):
        return tuple(_to(value, "cpu") for value in result)
    return _to(result, "cpu")


def _mine(cell: Cell | None, launch: Launch) -> bool:
    return cell is None or launch.file == str(cell.path)


def _to(value: Any, where: str) -> Any:
    """A tensor on the device with its strides kept; anything else as it is."""
    import torch

    if not isinstance(value, torch.Tensor) or value.device.type == where:
        return value
    if value.is_contiguous():
        return value.to(where)
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype,
                               device=where).copy_(value)


def _written(tensor: Any) -> None:
    import torch

    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        return
    kind = {4: torch.int32, 2: torch.int16}.get(tensor.element_size())
    if kind is None:
        return
    missing = tensor.contiguous().view(kind) == _MARK[tensor.element_size()]
    count = int(missing.sum())
    if count == 0:
        return
    at = [int(i) for i in missing.nonzero()[0]]
    rest = "nothing of it was ever written" if count == missing.numel() else (
        f"{count:,} of its {missing.numel():,} elements were never written, the first at index {at}"
    )
    raise Mistake(
        f"The result still holds what torch.empty gave it: {rest}. Which programs does the grid "
        "start, which columns does each of them cover, and what does the store's mask leave out?",
        "never-written")


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch launches, mark fresh memory, and guard it."""
    watch = Watch()
    with ExitStack() as stack:
        stack.enter_context(_marked_memory(watch))
        jit = sys.modules.get("triton.runtime.jit")
        if jit is not None:
            from infero.kernels import language

            watched = _interpreter if language.INTERPRETED else _compiled
            stack.enter_context(watched(watch))
        yield watch


@contextmanager
def _replaced(place: Any, **new: Any) -> Iterator[None]:
    """Attributes of a class, module or object replaced for a while."""
    missing = object()
    before = {name: vars(place).get(name, missing) for name in new}
    for name, value in new.items():
        setattr(place, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                delattr(place, name)
            else:
                setattr(place, name, value)


PAD = 1024  # elements on both sides of what torch.empty gives on a GPU


def _marked_memory(watch: Watch) -> Any:
    """A mode in which torch.empty and its kin give marked NaN, on a GPU with a margin around."""
    import torch
    from torch.overrides import TorchFunctionMode

    fresh = {torch.empty, torch.empty_like, torch.empty_strided, torch.Tensor.new_empty}

    class Marked(TorchFunctionMode):
        def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None
                               ) -> Any:
            made = func(*args, **(kwargs or {}))
            if func not in fresh or made.element_size() not in _MARK:
                return made
            if not made.is_floating_point() or made.numel() == 0:
                return made
            kind = torch.int32 if made.element_size() == 4 else torch.int16
            extent = sum((n - 1) * s for n, s in zip(made.shape, made.stride(), strict=True)) + 1
            pad = PAD if made.is_cuda else 0
            arena = torch.full((extent + 2 * pad,), _MARK[made.element_size()], dtype=kind,
                               device=made.device).view(made.dtype)
            inside = arena.as_strided(made.shape, made.stride(), pad)
            if pad:
                watch.padded.append((arena, inside))
            return inside

    return Marked()


def _padding_kept(watch: Watch) -> None:
    """On a GPU: whether the margins around the learner's own tensors are as they were."""
    import torch

    for arena, _ in watch.padded:
        kind = torch.int32 if arena.element_size() == 4 else torch.int16
        bits = arena.view(kind)
        after = bits[-PAD:] != _MARK[arena.element_size()]
        before = bits[:PAD] != _MARK[arena.element_size()]
        if bool(after.any()) or bool(before.any()):
            side = "past the end" if bool(after.any()) else "before the start"
            raise Mistake(
                f"A kernel writes {side} of the tensor it was given. {_MASK_WORDS}",
                "out-of-bounds")


_MASK_WORDS = (
    "A block is as wide as a power of two and the data is not: give the load and the store a mask "
    "(`mask=columns < n`), and count rows by the row's true length."
)


@contextmanager
def _compiled(watch: Watch) -> Iterator[None]:
    from triton.runtime.jit import JITFunction

    run = JITFunction.run

    def watched(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        file = self.fn.__code__.co_filename
        watch.launches.append(Launch(self.fn.__name__, file, _grid(grid)))
        return run(self, *args, grid=grid, warmup=warmup, **kwargs)

    with _replaced(JITFunction, run=watched):
        yield


def _grid(grid: Any) -> tuple[int, ...]:
    return () if callable(grid) else tuple(grid)


# -- the interpreter ------------------------------------------------------------------------------

_REGION = 1 << 44  # bytes of made-up addresses for each tensor argument: far apart


@contextmanager
def _interpreter(watch: Watch) -> Iterator[None]:
    """Give every tensor argument an address of its own, and check each lane of each access."""
    import numpy as np
    from triton.runtime import interpreter as it

    executor, builder = it.GridExecutor, it.interpreter_builder
    convert, run, host = it._implicit_cvt, executor.__call__, executor._init_args_hst
    function_call = it.InterpretedFunction.__call__
    names: dict[int, str] = {}

    def watched_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        file = self.fn.__code__.co_filename
        watch.launches.append(Launch(self.fn.__name__, file, _grid(self.grid)))
        watch.arguments.clear()
        watch.running = True
        try:
            return run(self, *args, **kwargs)
        finally:
            watch.running = False

    def watched_host(self: Any, args: Any, kwargs: Any) -> Any:
        hosted, named = host(self, args, kwargs)
        names.clear()
        names.update({id(v): n for n, v in [*zip(self.arg_names, hosted, strict=False),
                                            *named.items()]})
        return hosted, named

    def watched_convert(arg: Any) -> Any:
        made = convert(arg)
        if hasattr(arg, "data_ptr"):
            base = (len(watch.arguments) + 1) * _REGION + arg.data_ptr() % 4096
            watch.arguments.append((base, arg.data_ptr(), arg, names.get(id(arg), "a tensor")))
            made.handle.data = np.array([base], dtype=np.uint64)
        return made

    def watched_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not watch.running:
            name = self.fn.__name__
            raise Mistake(f"`{name}(...)` calls a kernel like a function. A launch says first how "
                          f"many programs to start: `{name}[(programs,)](...)`.", "no-grid")
        return function_call(self, *args, **kwargs)

    def true_addresses(pointers: Any, mask: Any, what: str) -> Any:
        data = pointers.data
        active = np.broadcast_to(mask.data, data.shape).astype(bool)
        real = data.copy()
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        for owner in np.unique(data >> 44):
            if not 1 <= owner <= len(watch.arguments):
                continue  # outside every tensor: an address that the kernel loaded
            base, true, tensor, name = watch.arguments[int(owner) - 1]
            here = (data >> 44) == owner
            offset = data.astype(np.int64) - base
            last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            end = (last + 1) * tensor.element_size() if tensor.numel() else 0
            bad = here & active & ((offset < 0) | (offset + size > end))
            if bad.any():
                raise _outside(offset[bad] // tensor.element_size(), active.size, int(bad.sum()),
                               tensor, name, what, builder.grid_idx)
            real[here] = (offset[here] + true).astype(np.uint64)
        if what == "store":
            watch.stored += int(active.sum())
        low = active & (data < _REGION)
        if low.any():
            raise Mistake(f"A {what} goes to an address outside every tensor of the launch: is the "
                          "offset negative, or the pointer forgotten?", "out-of-bounds")
        return it.TensorHandle(real, pointers.dtype)

    def guarded(name: str, what: str, mask_at: int) -> Any:
        original = getattr(builder, name)

        def access(*args: Any) -> Any:
            at = 1 if name == "create_atomic_rmw" else 0
            args = (*args[:at], true_addresses(args[at], args[mask_at], what), *args[at + 1 :])
            return original(*args)

        return access

    accesses = {
        "create_masked_load": guarded("create_masked_load", "load", 1),
        "create_masked_store": guarded("create_masked_store", "store", 2),
        "create_atomic_rmw": guarded("create_atomic_rmw", "store", 3),
    }
    with (
        np.errstate(all="ignore"),  # an overflow on a GPU says nothing either
        _replaced(executor, __call__=watched_run, _init_args_hst=watched_host),
        _replaced(it.InterpretedFunction, __call__=watched_call),
        _replaced(it, _implicit_cvt=watched_convert),
        _replaced(builder, **accesses),
    ):
        yield


def _outside(elements: Any, lanes: int, bad: int, tensor: Any, name: str, what: str, grid: Any
             ) -> Mistake:
    """The mistake of lanes that point outside a tensor."""
    verb = {"load": "reads", "store": "writes"}[what]
    first = int(elements.flat[0])
    program = tuple(int(i) for i in grid)
    while len(program) > 1 and program[-1] == 0:
        program = program[:-1]
    shown = program[0] if len(program) == 1 else program
    which = f"element {first}" if first >= 0 else f"{-first} elements before the start"
    many = f"{bad} of its {lanes} lanes do" if lanes > 1 else "its only lane does"
    return Mistake(
        f"Program {shown} {verb} outside `{name}`, which has {tensor.numel():,} elements (shape "
        f"{list(tensor.shape)}, strides {list(tensor.stride())}): {many}, the first at {which}. "
        f"{_MASK_WORDS}", "out-of-bounds")
