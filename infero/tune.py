"""`infero tune`: which configuration of a kernel is fastest on this card, measured and kept.

A Triton kernel leaves choices open (how large a tile, how many warps, how deep a pipeline) that
only a measurement settles, and whose answer differs from card to card. Searching when an engine
starts would cost minutes each time, so the answers are tables: one of the package
(`infero/kernels/tuned.json`) for the cards this project measured, one in the user's configuration
folder, which `infero tune` writes and which is asked first. Chapter 15 explains what is chosen.

A kernel module takes part with two things. Where it launches, it asks `best(kernel, shape)`, a
look-up in a dictionary, and falls back to its own default. And it offers `tunables()`, the list of
`Tunable`s that say what to try. Nothing here is needed to run a model.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infero.errors import InferoError, ParameterError

Config = dict[str, Any]  # of a kernel: block sizes, warps, stages; JSON values only
Table = dict[str, dict[str, dict[str, Config]]]  # architecture -> kernel -> shape class -> config

MODULES = ("decode", "flash", "matmul", "products", "norms", "activations", "rotary", "embeddings",
           "sampler")  # of infero.kernels: those that have `tunables` are tuned
TOLERANCE = 0.02  # of the largest number: beyond it two configurations do not agree
FLUSH_BYTES = 256 << 20  # written between two timed calls, so that nothing is read from the L2


class TuneError(InferoError):
    """Kernels cannot be tuned here, or not as asked."""


@dataclass(frozen=True)
class Tunable:
    """One kernel at one class of shapes, and what may be tried for it.

    `prepare(device)` makes the inputs once and returns `use`; `use(config)` returns the call to be
    timed, whose result is a tensor. A configuration that cannot run raises, in
    `use` or when called.
    """

    kernel: str  # as `best` is asked: "decode.attention"
    shape: str  # class of shapes, in words of the kernel's own: "d128 g4"
    candidates: Sequence[Config]
    prepare: Callable[[Any], Callable[[Config], Callable[[], Any]]] = field(repr=False)
    bytes_moved: float = 0.0  # by one call at least, for a rate; 0 where it says nothing


@dataclass(frozen=True)
class Trial:
    """One candidate, measured; `problem` says why it has no time."""

    config: Config
    time_s: float | None
    problem: str = ""


@dataclass(frozen=True)
class Tuned:
    """What came out for one Tunable."""

    tunable: Tunable
    trials: Sequence[Trial]

    @property
    def best(self) -> Trial | None:
        timed = [trial for trial in self.trials if trial.time_s is not None]
        return min(timed, key=lambda trial: trial.time_s or 0.0) if timed else None

    @property
    def gain(self) -> float:
        """The first candidate's time (the default's) over the best one's."""
        first, best = self.trials[0].time_s, self.best
        return first / best.time_s if first and best and best.time_s else 1.0


# ---------------------------------------------------------------- the tables


@functools.cache
def architecture(device: Any = None) -> str:
    """The key of a card's rows: "sm_90" for compute capability 9.0, "cpu" without a GPU.

    Remembered for each device: kernels ask at every launch.
    """
    import torch

    where = torch.device(device if device is not None else "cuda")
    if where.type != "cuda" or not torch.cuda.is_available():
        return "cpu"
    major, minor = torch.cuda.get_device_capability(where)
    return f"sm_{major}{minor}"


def package_file() -> Path:
    """The table that comes with the package."""
    return Path(__file__).resolve().parent / "kernels" / "tuned.json"


def user_file() -> Path | None:
    """The user's own table: in $INFERO_CONFIG, else the platform's configuration folder."""
    try:
        if chosen := os.environ.get("INFERO_CONFIG", "").strip():
            return Path(chosen).expanduser() / "tuned.json"
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
        elif sys.platform == "darwin":
            base = "~/Library/Application Support"
        else:
            base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        return Path(base).expanduser() / "infero" / "tuned.json"
    except RuntimeError:  # a user without a home folder
        return None


def read(path: Path | None) -> Table:
    """A table from its file; an absent, damaged or unreadable one is empty."""
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    good = isinstance(data, dict) and all(
        isinstance(config, dict) for kernels in data.values() if isinstance(kernels, dict)
        for shapes in kernels.values() if isinstance(shapes, dict) for config in shapes.values())
    nested = good and all(isinstance(kernels, dict) and all(isinstance(s, dict) for s in
                                                            kernels.values())
                          for kernels in data.values())
    return data if nested else {}


def write(path: Path, new: Table) -> None:
    """Put the rows of `new` into the table at `path`; other rows stay."""
    from infero.results import write_atomically

    table = read(path)
    for arch, kernels in new.items():
        for kernel, shapes in kernels.items():
            table.setdefault(arch, {}).setdefault(kernel, {}).update(shapes)
    lines = []
    for arch in sorted(table):
        rows = [f"  {json.dumps(kernel)}: {{\n" + ",\n".join(
            f"   {json.dumps(shape)}: {json.dumps(config)}"
            for shape, config in sorted(table[arch][kernel].items())) + "\n  }"
            for kernel in sorted(table[arch])]
        lines.append(f" {json.dumps(arch)}: {{\n" + ",\n".join(rows) + "\n }")
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")
    forget()


@functools.cache
def rows(arch: str) -> dict[str, dict[str, Config]]:
    """All configurations known for an architecture, the user's over the package's."""
    merged: dict[str, dict[str, Config]] = {}
    for path in (package_file(), user_file()):
        for kernel, shapes in read(path).get(arch, {}).items():
            merged.setdefault(kernel, {}).update(shapes)
    return merged


@functools.cache
def best(kernel: str, shape: str, arch: str | None = None) -> Config | None:
    """The stored configuration of a kernel at a class of shapes on this card, or None.

    Read-only: callers share it. `arch` is the current GPU's unless given.
    """
    return rows(arch or architecture()).get(kernel, {}).get(shape)


def forget() -> None:
    """Read the tables again at the next look-up."""
    rows.cache_clear()
    best.cache_clear()


# ---------------------------------------------------------------- measuring


def tunables(chosen: Sequence[str] = ()) -> list[Tunable]:
    """What the kernel modules offer; `chosen` are beginnings of kernels' names."""
    import importlib

    found: list[Tunable] = []
    for name in MODULES:
        try:
            module = importlib.import_module(f"infero.kernels.{name}")
        except ModuleNotFoundError as problem:
            if problem.name != f"infero.kernels.{name}":
                raise
            continue
        offered: Callable[[], Iterable[Tunable]] | None = getattr(module, "tunables", None)
        found += offered() if offered else []
    kept = [t for t in found if not chosen or t.kernel.startswith(tuple(chosen))]
    if chosen and not kept:
        names = sorted({t.kernel for t in found})
        raise ParameterError(f"No kernel {', '.join(chosen)!r} can be tuned; there are "
                             f"{', '.join(names) or 'none'}.")
    return kept


def need_gpu() -> None:
    """TuneError where there is no GPU that kernels are compiled for."""
    import torch

    from infero.kernels import language

    if not torch.cuda.is_available():
        raise TuneError("There is no GPU here, and without one kernels are interpreted: their "
                        "times mean nothing. Run `infero tune` on a machine with a GPU.")
    language.need()
    if language.INTERPRETED:
        raise TuneError("TRITON_INTERPRET is set, so kernels are interpreted: unset it to tune.")


def compile_share(index: int, count: int, chosen: Sequence[str] = ()) -> None:
    """Run every `count`-th candidate once, from `index` on: its machine code lands in the cache."""
    import contextlib

    import torch

    turn = 0
    for one in tunables(chosen):
        use = None
        for config in one.candidates:
            turn += 1
            if turn % count == index:
                with contextlib.suppress(Exception):  # said when it is measured
                    use = use or one.prepare(torch.device("cuda"))
                    use(dict(config))()
        del use
        torch.cuda.empty_cache()


def compile_all(chosen: Sequence[str] = (), processes: int | None = None) -> None:
    """Compile all candidates in several processes; measuring them afterwards takes a moment."""
    import subprocess

    count = processes or max(1, min(8, (os.cpu_count() or 2) // 2))
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    running = [subprocess.Popen(
        [sys.executable, "-c", "import sys; from infero import tune; tune.compile_share("
         "int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])", str(index), str(count), *chosen],
        env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL) for index in range(count)]
    try:
        for process in running:
            process.wait()
    finally:
        for process in running:
            process.kill()


def tune(one: Tunable, device: Any = "cuda", *, timed: Callable[..., float] | None = None) -> Tuned:
    """Measure every candidate of a Tunable; one whose result differs from the first's is out."""
    import torch

    timed = timed or time_s
    trials, reference = list[Trial](), None
    use = one.prepare(torch.device(device))
    for config in one.candidates:
        try:
            run = use(dict(config))
            result = run()
            value = result[0] if isinstance(result, tuple) else result
            wide = value.detach().double().cpu()
            if reference is None:
                reference = wide
            error = float((wide - reference).abs().max() / reference.abs().max().clamp_min(1e-30))
            if not error <= TOLERANCE:
                trials.append(Trial(config, None, f"its result differs by {error:.1%}"))
                continue
            trials.append(Trial(config, timed(run, device)))
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # shared memory, registers, a shape it does not take
            words = (str(problem).splitlines() or [""])[0][:100]
            trials.append(Trial(config, None, f"{type(problem).__name__}: {words}"))
    return Tuned(one, trials)


def time_s(run: Callable[[], Any], device: Any = "cuda", repeats: int = 20) -> float:
    """Median seconds of a call on the GPU, the L2 cache overwritten before each."""
    import statistics

    import torch

    flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device=device)
    for _ in range(3):
        run()
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in pairs:
        flush.zero_()
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) * 1e-3 for start, end in pairs)


def table_of(found: Iterable[Tuned], arch: str) -> Table:
    """The best configurations as a table to write."""
    table: Table = {arch: {}}
    for one in found:
        if one.best is not None:
            table[arch].setdefault(one.tunable.kernel, {})[one.tunable.shape] = one.best.config
    return table
