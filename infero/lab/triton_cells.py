"""Exercise cells with Triton kernels: found, read before they run, their errors in plain words.

A Triton piece is the host's wrapper; kernel and wrapper stand in one cell. What the interpreter
lets pass and a compiler refuses is named before the kernel runs, and what Triton says when it stops
is put into the words of chapter 13. `kernels.py` runs such a piece under a check.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infero.lab.checking import Mistake

if TYPE_CHECKING:
    from infero.lab.checking import Cell

#: modules of the host that a learner may reach for inside a kernel
_HOST = {"torch", "F", "math", "np", "numpy"}


# -- kernels --------------------------------------------------------------------------------------


def is_kernel(value: Any) -> bool:
    """Whether a value is a function under `@triton.jit`, compiled or interpreted."""
    jit = sys.modules.get("triton.runtime.jit")
    return jit is not None and isinstance(value, jit.KernelInterface)


def is_jit(node: ast.AST) -> bool:
    """Whether a definition carries `@triton.jit` (or `@triton.jit(...)`)."""
    if not isinstance(node, ast.FunctionDef):
        return False
    marks = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return any(ast.unparse(mark) in ("triton.jit", "jit") for mark in marks)


def used_by(function: Callable[..., Any], stop: frozenset[str] = frozenset()) -> list[Any]:
    """The kernels that a function launches, found by name through its module's own helpers.

    `stop` names functions not to look into: other pieces.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting: list[Any] = [function]
    while waiting:
        each = waiting.pop()
        plain = getattr(each, "fn", each) if is_kernel(each) else each
        code = getattr(plain, "__code__", None)
        if code is None or id(each) in seen:
            continue
        seen.add(id(each))
        if is_kernel(each):
            found.append(each)
        for name in _names(code):
            value = plain.__globals__.get(name)
            own = isinstance(value, types.FunctionType) and (
                value.__globals__ is plain.__globals__ and name not in stop
            )
            if own or is_kernel(value):
                waiting.append(value)
    return found


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*inner)


def source_of(function: Callable[..., Any], stop: frozenset[str] = frozenset()) -> str:
    """The source of a function below that of its module's kernels that it uses: a whole cell."""
    own = [kernel.fn for kernel in used_by(function, stop)
           if kernel.fn.__module__ == function.__module__]
    own.sort(key=lambda fn: fn.__code__.co_firstlineno)
    return "\n\n".join(inspect.getsource(each) for each in [*own, function])


def settle(module: types.ModuleType) -> None:
    """Let interpreted kernels read their source now: the file may have changed at the launch."""
    for value in list(vars(module).values()):
        if is_kernel(value) and hasattr(value, "rewrite"):
            value.rewrite()


# -- what the interpreter lets pass and a compiler does not ----------------------------------------


def refuse_host_code(tree: ast.Module, where: str) -> None:
    """Raise Mistake for what a kernel cannot have, before it runs: host calls, plain globals."""
    constants = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and "constexpr" not in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Name) and not isinstance(node.value, ast.Attribute)
    }
    for kernel in filter(is_jit, tree.body):
        assert isinstance(kernel, ast.FunctionDef)
        own = {a.arg for a in kernel.args.args}
        own |= {n.id for n in ast.walk(kernel)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for node in (n for part in kernel.body for n in ast.walk(part)):
            at = f"line {getattr(node, 'lineno', 0)} of {where}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                base = ast.unparse(node.func.value).partition(".")[0]
                if base in _HOST - own:
                    raise Mistake(
                        f"`{ast.unparse(node.func)}` in {at} is a function of the host. A kernel "
                        "runs on the GPU and has only what `tl` offers: tl.load, tl.store, tl.sum, "
                        "tl.exp and so on.", "host-code")
            if isinstance(node, ast.Name) and node.id in constants - own:
                raise Mistake(
                    f"`{node.id}` in {at} is a global of the host. The interpreter lets it pass "
                    "and the compiler does not: pass it as an argument, or write "
                    f"`{node.id} = tl.constexpr(...)`.", "host-global")
            if isinstance(node, ast.BoolOp):
                raise Mistake(
                    f"`{ast.unparse(node)}` in {at}: `and` and `or` ask for one truth value, and a "
                    "block has many. Use & and | with brackets around each comparison.", "host-and")


# -- errors in plain words ------------------------------------------------------------------------

_WRAPPERS = {"InterpreterError", "CompilationError"}

#: part of what Triton says, the key, and what it means
_MEANINGS: tuple[tuple[str, str, str], ...] = (
    ("range must be a power of 2", "not-a-power-of-two",
     "tl.arange makes 2, 4, 8, ... numbers. Use the block's size, a power of two "
     "(triton.next_power_of_2(n)), and mask the lanes beyond n."),
    ("arguments must be of type tl.constexpr", "not-constexpr",
     "the ends of tl.arange must be known when the kernel is compiled: annotate the block's size "
     "in the kernel's arguments, `BLOCK: tl.constexpr`."),
    ("constexpr", "not-constexpr",
     "a shape must be known when the kernel is compiled: annotate the argument, "
     "`BLOCK: tl.constexpr`."),
    ("Cannot make_shape_compatible", "shapes-differ",
     "two blocks of different sizes meet: every block in one expression has the same shape, or "
     "size 1 along an axis."),
    ("could not be broadcast", "shapes-differ",
     "two blocks of different sizes meet: every block in one expression has the same shape, or "
     "size 1 along an axis."),
    ("Unsupported ptr type", "not-a-pointer",
     "tl.load and tl.store take a pointer plus offsets (`x + columns`), and this is a value "
     "already loaded, or a number."),
    ("'int' object has no attribute", "plain-number",
     "a plain Python number stands where a block is needed."),
    ("Cannot call @triton.jit'd outside", "no-grid",
     "a launch says first how many programs to start: `kernel[(programs,)](...)`."),
    ("missing a required argument", "arguments", "the launch leaves out an argument."),
    ("required positional argument", "arguments", "the launch leaves out an argument."),
    ("unexpected keyword argument", "arguments",
     "the launch names an argument that the kernel does not have."),
    ("too many positional arguments", "arguments",
     "the launch gives more arguments than the kernel has."),
    ("truth value", "host-and",
     "a block has many truth values: write & and | for `and` and `or`, and tl.where for `if`."),
    ("not defined", "unknown-name", "this name does not exist in the kernel."),
    ("out of resource", "too-large",
     "the block needs more registers or shared memory than the card has: make it smaller."),
    ("numel", "too-large", "a block holds at most 1,048,576 elements."),
    ("Pointer argument", "not-on-gpu", "a tensor is on the CPU: make new ones on x.device."),
)


def translate(error: BaseException) -> tuple[BaseException, str, str]:
    """The error inside an error of Triton, its key, and its meaning in words ("" if unknown)."""
    inner = error
    while type(inner).__name__ in _WRAPPERS and inner.__cause__ is not None:
        inner = inner.__cause__
    if isinstance(inner, Mistake):
        return inner, inner.key, ""
    from_triton = inner is not error or "triton" in type(inner).__module__
    if from_triton or isinstance(inner, (ValueError, TypeError, RuntimeError)):
        said = str(getattr(inner, "error_message", None) or inner)
        for part, key, words in _MEANINGS:
            if part in said and (from_triton or key in ("no-grid", "arguments", "not-on-gpu")):
                return inner, key, words
    return inner, "raises", ""


def compiled_line(error: BaseException, cell: Cell) -> str:
    """Of a compiler's error: the line of the cell that it points at, in words."""
    source, node = getattr(error, "src", None), getattr(error, "node", None)
    if not isinstance(source, str) or node is None or not hasattr(node, "lineno"):
        return ""
    lines = source.splitlines()
    line = lines[node.lineno - 1].strip() if node.lineno <= len(lines) else ""
    for number, text in enumerate(cell.text.splitlines(), 1):
        if line and text.strip() == line:
            return f" in line {number} of {cell.where}:\n    {line}"
    return ""
