"""Compile every kernel for GPUs that are not here: examples of how each one is called.

A kernel that passes its tests under the interpreter may still be refused by the compiler, or ask
for more shared memory than a card has. Triton compiles for a card it does not see, so each module
of kernels offers `examples()`, one typical call of each kernel, and the tests compile them for
compute capability 7.5, 8.0 and 9.0. `python -m infero.kernels.examples norms` prints what came out
(registers, shared memory, bytes spilled), which is where tuning starts. Chapter 13.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infero import kernels
from infero.kernels import language

TARGETS = ((7, 5), (8, 0), (9, 0))
SHARED_LIMIT = {(7, 5): 64 << 10, (8, 0): 163 << 10, (9, 0): 227 << 10}  # bytes a block may have


@dataclass(frozen=True)
class Example:
    """One call of a kernel: `fn` with the types of its arguments and its constants.

    signature: every argument by name, in order: "*bf16" a pointer, "i32" an integer, "fp32" a
    number, "constexpr" a constant, whose value is in `constexprs`. Pointers count as aligned to 16
    bytes, as PyTorch's are, and so do the integers named in `aligned` (multiples of 16). `least`:
    the oldest compute capability it is meant for. `options` go to the compiler (num_stages, ...).
    """

    fn: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    least: tuple[int, int] = (7, 5)
    aligned: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.fn.__name__)


@dataclass
class Compiled:
    """What the compiler made of one example for one compute capability."""

    module: str
    kernel: str
    target: tuple[int, int]
    seconds: float
    registers: int = 0  # a thread
    shared_bytes: int = 0  # a block
    spilled_bytes: int = 0  # a thread
    error: str = ""


def modules(chosen: Sequence[str] = ()) -> list[str]:
    """Modules of `infero.kernels`, steps included, that offer examples: all, or those chosen."""
    found = []
    for info in pkgutil.walk_packages(kernels.__path__, "infero.kernels."):
        short = info.name.removeprefix("infero.kernels.")
        if not info.ispkg and info.name != __name__ and (not chosen or short in chosen):
            module = importlib.import_module(info.name)
            if hasattr(module, "examples"):
                found.append(info.name)
    return found


@functools.cache
def _examples(module: str) -> list[Example]:
    return list(importlib.import_module(module).examples())


def without_example(module: str) -> list[str]:
    """Kernels of a module that neither have an example nor are called by another kernel of it."""
    named = {k: v for k, v in vars(importlib.import_module(module)).items()
             if isinstance(v, language.triton.JITFunction)
             and v.__module__ == module}
    shown = {example.name for example in _examples(module)}
    sources = {k: v.src for k, v in named.items()}
    return [name for name in named if name not in shown and not any(
        re.search(rf"\b{name}\(", text) for other, text in sources.items() if other != name)]


def compile_one(module: str, index: int, target: tuple[int, int]) -> Compiled:
    """Compile one example of a module; what goes wrong is in `error`."""
    example = _examples(module)[index]
    start = time.perf_counter()
    found = Compiled(module, example.name, target, 0.0)
    try:
        _compile(example, found)
    except Exception as problem:
        found.error = f"{type(problem).__name__}: {problem}"[:2000]
    found.seconds = time.perf_counter() - start
    return found


def _compile(example: Example, found: Compiled) -> None:
    backends = importlib.import_module("triton.backends.compiler")
    compiler = importlib.import_module("triton.compiler")
    major, minor = found.target
    if missing := set(example.fn.arg_names) ^ set(example.signature):
        raise TypeError(f"signature and kernel disagree about {sorted(missing)}")
    names = list(example.fn.arg_names)
    signature = {name: example.signature[name] for name in names}
    attrs = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names)
             if signature[name].startswith("*") or name in example.aligned}
    source = compiler.ASTSource(example.fn, signature, dict(example.constexprs), attrs)
    target = backends.GPUTarget("cuda", 10 * major + minor, 32)
    options = {"num_warps": example.num_warps, **example.options}
    built = compiler.compile(source, target=target, options=options)
    found.shared_bytes = built.metadata.shared
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        tool = Path(language.triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        if tool.is_file():
            said = subprocess.run([tool, "--dump-resource-usage", cubin], check=True,
                                  capture_output=True, text=True).stdout
            found.registers = _number("REG", said)
            found.spilled_bytes = _number("STACK", said)
    if found.shared_bytes > SHARED_LIMIT.get(found.target, 1 << 30):
        found.error = (f"wants {found.shared_bytes} bytes of shared memory; a block of compute "
                       f"capability {major}.{minor} has {SHARED_LIMIT[found.target]}: smaller "
                       "blocks, fewer stages, or a larger `least`")


def _number(name: str, text: str) -> int:
    return max((int(n) for n in re.findall(rf"{name}:(\d+)", text)), default=0)


def compile_all(names: Sequence[str], targets: Sequence[tuple[int, int]] = TARGETS,
                workers: int | None = None) -> list[Compiled]:
    """Every example of the named modules for every target it is meant for."""
    work = [(name, i, target) for name in names for i, example in enumerate(_examples(name))
            for target in targets if target >= example.least]
    workers = min(workers or os.cpu_count() or 1, max(len(work), 1))
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(compile_one, *zip(*work, strict=True))) if work else []


def main(argv: Sequence[str]) -> int:
    """Compile the modules named (or all), print a table; 1 if anything was refused."""
    if language.INTERPRETED:
        print("Kernels are interpreted here; run with TRITON_INTERPRET=0 to compile them.")
        return 2
    names = modules(argv)
    found = compile_all(names)
    print(f"{'kernel':44} {'cc':>4} {'s':>5} {'regs':>5} {'spilled':>7} {'shared':>8}")
    for one in found:
        where = f"{one.module.removeprefix('infero.kernels.')}.{one.kernel}"
        print(f"{where:44} {one.target[0]}.{one.target[1]:<2} {one.seconds:5.1f} "
              f"{one.registers:5} {one.spilled_bytes:7} {one.shared_bytes:8} {one.error}")
    for name in names:
        for kernel in without_example(name):
            print(f"{name}.{kernel} has no example")
    return int(any(one.error for one in found))


def report(argv: Sequence[str]) -> dict[str, Any]:
    """The same for a program to read: what was compiled, and kernels without an example."""
    names = list(argv) or modules()
    return {"modules": names, "compiled": [asdict(one) for one in compile_all(names)],
            "without_example": {name: without_example(name) for name in names}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
