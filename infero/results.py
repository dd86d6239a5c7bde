"""Measured numbers and where they come from: `results/DEVICE/NAME.json`.

Programs in `benchmarks/` write these files through `record`; the book, the labs and the command
line read them through `get` and `table`. A file carries its provenance (device, driver, software,
commit, date, exact command), and every value its unit, sample count and spread. Chapter 3 explains
why. Values are in SI base units (s, byte/s, flop/s, J); `render` scales them for reading.
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import json
import math
import os
import re
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infero.errors import InferoError
from infero.units import render as render
from infero.units import require_base_unit

SCHEMA = 1
GPU_ALIASES = ("h100", "h200")  # what `gpu/…` means, first present wins
FACTS = ("@device", "@driver", "@date", "@commit", "@command", "@python", "@torch", "@triton")


class ResultMissing(InferoError, KeyError):
    """No such measured number. The message names near matches and the program to run."""

    def __str__(self) -> str:
        return str(self.args[0])


class ResultInvalid(InferoError):
    """A results file does not follow the schema."""


@dataclass(frozen=True)
class Value:
    """One measured number. `spread` is the interquartile range over the median.

    A fact about the run (`gpu/limits/@device`) is a Value too: its `words` hold the fact.
    """

    key: str
    value: float
    unit: str
    n: int
    spread: float | None
    note: str
    device: str
    date: str
    words: str = ""

    @property
    def text(self) -> str:
        """The number scaled for reading, with its unit: "3,032 GB/s"."""
        return self.words or render(self.value, self.unit)

    @property
    def label(self) -> str:
        """Where the number was measured: device and day."""
        return f"{self.device}, {self.date[:10]}"


@dataclass(frozen=True)
class Table:
    """Measured rows; `columns` are (name, unit) pairs."""

    key: str
    columns: list[tuple[str, str]]
    rows: list[list[Any]]
    device: str
    date: str

    def column(self, name: str) -> list[Any]:
        """All values of the column of that name."""
        names = [c[0] for c in self.columns]
        if name not in names:
            raise ResultMissing(f"{self.key} has no column {name!r}; it has {', '.join(names)}.")
        return [row[names.index(name)] for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return [dict(zip((c[0] for c in self.columns), row, strict=True)) for row in self.rows]


# ---------------------------------------------------------------- reading


def root() -> Path:
    """The results folder: $INFERO_RESULTS, the checkout's `results/`, or the wheel's copy."""
    if given := os.environ.get("INFERO_RESULTS"):
        return Path(given)
    here = Path(__file__).resolve().parent
    checkout = here.parent / "results"
    return checkout if checkout.is_dir() else here / "_data" / "results"


def names() -> list[str]:
    """Every results file as `device/name`."""
    return sorted(f"{p.parent.name}/{p.stem}" for p in root().glob("*/*.json"))


def devices() -> list[str]:
    """The devices that have results: the cards that `gpu` may mean first, then by name."""
    found = {p.parent.name for p in root().glob("*/*.json")}
    return [d for d in GPU_ALIASES if d in found] + sorted(found - set(GPU_ALIASES))


def load(device: str, name: str) -> dict[str, Any]:
    """One results file, checked against the schema. `gpu` stands for h100, else h200."""
    candidates = GPU_ALIASES if device == "gpu" else (device,)
    for slug in candidates:
        path = root() / slug / f"{name}.json"
        if path.is_file():
            return _read(path, path.stat().st_mtime_ns)
    known = names()
    near = difflib.get_close_matches(f"{candidates[0]}/{name}", known, n=3)
    hint = f" Near: {', '.join(near)}." if near else ""
    program = root().parent / "benchmarks" / f"{name}.py"
    remedy = (f"Measure it with: python -m benchmarks.{name}" if program.is_file()
              else "Check the spelling; `make gpu` measures what there is")
    raise ResultMissing(f"There is no results file {device}/{name}.json.{hint} {remedy}.")


@functools.lru_cache(maxsize=64)
def _read(path: Path, _mtime_ns: int) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ResultInvalid(f"{path} is not JSON ({problem}); measure it again.") from problem
    validate(data, str(path))
    return data


def get(key: str) -> Value:
    """The value of `device/name/value`, for example `gpu/limits/copy_bandwidth`.

    `device/name/@device` (or @driver, @date, @commit, @command, @python, @torch, @triton) gives a
    fact about the run, as text.
    """
    device, name, value = _split(key)
    data = load(device, name)
    if value.startswith("@"):
        return Value(key, math.nan, "", 1, None, "", data["device"]["name"], data["date"],
                     words=_fact(key, value, data))
    if value not in data["values"]:
        raise ResultMissing(_no_entry(key, value, data, "values"))
    v = data["values"][value]
    return Value(key, v["value"], v["unit"], v["n"], v.get("spread"), v.get("note", ""),
                 data["device"]["name"], data["date"])


def table(key: str) -> Table:
    """The table of `device/name/table`."""
    device, name, entry = _split(key)
    data = load(device, name)
    if entry not in data["tables"]:
        raise ResultMissing(_no_entry(key, entry, data, "tables"))
    t = data["tables"][entry]
    columns = [(c["name"], c["unit"]) for c in t["columns"]]
    return Table(key, columns, t["rows"], data["device"]["name"], data["date"])


def provenance(key: str) -> dict[str, Any]:
    """Device, software, commit, date and command of the file that a key lies in."""
    device, name, _ = _split(key)
    data = load(device, name)
    return {k: data[k] for k in ("device", "software", "commit", "date", "command")}


def _fact(key: str, fact: str, data: dict[str, Any]) -> str:
    if fact not in FACTS:
        raise ResultMissing(f"{key!r}: there is no fact {fact!r}; there are {', '.join(FACTS)}.")
    if fact == "@device":
        return str(data["device"]["name"])
    if fact == "@driver":
        return str(data["device"]["driver"] or "none")
    if fact == "@date":
        return str(data["date"])[:10]
    if fact in ("@commit", "@command"):
        return str(data[fact[1:]])
    return str(data["software"][fact[1:]] or "none")


def _split(key: str) -> tuple[str, str, str]:
    parts = key.split("/")
    if len(parts) != 3 or not all(parts):
        raise ResultMissing(f"{key!r} is no result key; write device/name/value, "
                            "for example gpu/limits/copy_bandwidth.")
    return parts[0], parts[1], parts[2]


def _no_entry(key: str, entry: str, data: dict[str, Any], kind: str) -> str:
    have = list(data[kind])
    near = difflib.get_close_matches(entry, have, n=3) or have[:5]
    return (f"No result {key!r}: {data['name']}.json holds no such entry in its {kind} "
            f"(near: {', '.join(near) or 'none'}). Measure it with: {data['command']}.")


# ---------------------------------------------------------------- writing


@dataclass
class Recorder:
    """Collects one program's values and tables; `record` writes them."""

    name: str
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def value(self, key: str, samples: float | Sequence[float], *, unit: str, note: str = "",
              n: int | None = None, spread: float | None = None) -> float:
        """Record a number, or the median of samples with their relative interquartile range."""
        require_base_unit(unit, key)
        if isinstance(samples, (int, float)):
            middle, count = float(samples), n or 1
        else:
            ordered = sorted(float(s) for s in samples)
            if not ordered:
                raise ResultInvalid(f"{self.name}: value {key!r} got no samples; measure once")
            middle, count = statistics.median(ordered), len(ordered)
            if count >= 4 and middle:
                q1, _, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
                spread = (q3 - q1) / abs(middle)
        self.values[key] = {"value": middle, "unit": unit, "n": count, "spread": spread,
                            "note": note}
        return middle

    def table(self, key: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]
              ) -> None:
        """Record rows under (name, unit) columns."""
        for column, unit in columns:
            require_base_unit(unit, f"{key}.{column}")
        self.tables[key] = {"columns": [{"name": c, "unit": u} for c, u in columns],
                            "rows": [list(r) for r in rows]}


@contextmanager
def record(name: str, *, argv: Sequence[str] | None = None, out: str | Path | None = None,
           device: str | None = None) -> Iterator[Recorder]:
    """Collect a benchmark's numbers and write `OUT/DEVICE/NAME.json` when the block ends well.

    `argv` are the program's own arguments (None: the command line's); `device` is "cuda" or "cpu"
    (default: cuda where there is one). An exception inside the block leaves an older file alone.
    """
    from infero import provenance as here

    if argv is None:
        program = getattr(sys.modules["__main__"], "__spec__", None)
        argv = sys.argv[1:] if program and program.name == f"benchmarks.{name}" else []

    recorder = Recorder(name)
    yield recorder
    info = here.device_info(device)
    data = {
        "schema": SCHEMA, "name": name, "device": info, "software": here.software(),
        "commit": here.commit(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *_without_out(argv)]),
        "values": recorder.values, "tables": recorder.tables,
    }
    validate(data, name)
    folder = Path(out) if out else root()
    path = folder / info["slug"] / f"{name}.json"
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    print(f"wrote {path}", file=sys.stderr)


def _without_out(argv: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for arg in argv:
        if skip or arg == "--out":
            skip = arg == "--out"
        elif not arg.startswith("--out="):
            kept.append(arg)
    return kept


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------- schema

_NUMBER, _TEXT, _COUNT = (int, float), (str,), (int,)


def validate(data: Any, where: str = "results") -> None:
    """Raise ResultInvalid, naming the field, unless `data` follows the schema."""

    def need(holds: bool, words: str) -> None:
        if not holds:
            raise ResultInvalid(f"{where}: {words}")

    def fields(thing: Any, what: str, **kinds: tuple[type, ...]) -> None:
        need(isinstance(thing, dict), f"{what} must be an object")
        odd = set(thing) ^ set(kinds)
        need(not odd, f"{what} must hold {', '.join(kinds)}; missing or unknown: {sorted(odd)}")
        for name, kind in kinds.items():
            good = isinstance(thing[name], kind) and not isinstance(thing[name], bool)
            finite = not isinstance(thing[name], float) or math.isfinite(thing[name])
            need(good and finite, f"{what}.{name} is {thing[name]!r}")

    none = type(None)
    need(isinstance(data, dict), "the file must hold an object")
    need(data.get("schema") == SCHEMA,
         f"schema is {data.get('schema')!r}, this code reads {SCHEMA}; measure it again")
    fields(data, "the file", schema=_COUNT, name=_TEXT, device=(dict,), software=(dict,),
           commit=_TEXT, date=_TEXT, command=_TEXT, values=(dict,), tables=(dict,))
    fields(data["device"], "device", slug=_TEXT, kind=_TEXT, name=_TEXT, driver=(str, none),
           memory_bytes=(int, none), cores=(int, none))
    fields(data["software"], "software", python=_TEXT, torch=_TEXT, triton=(str, none),
           infero=_TEXT)
    need(data["device"]["kind"] in ("cuda", "cpu"), f"device.kind is {data['device']['kind']!r}")
    need(bool(re.fullmatch(r"python -m benchmarks\.\w+( .*)?", data["command"])),
         f"command {data['command']!r} is no `python -m benchmarks.NAME`")
    try:
        dt.datetime.fromisoformat(data["date"])
    except ValueError:
        need(False, f"date {data['date']!r} is not ISO 8601")
    need(bool(data["values"] or data["tables"]), "nothing was measured: no values and no tables")
    for key, v in data["values"].items():
        what = f"values.{key}"
        need(bool(re.fullmatch(r"[\w.+-]+", key)), f"{what}: a key is letters, digits and _ . + -")
        fields(v, what, value=_NUMBER, unit=_TEXT, n=_COUNT, spread=(int, float, none), note=_TEXT)
        need(v["n"] >= 1, f"{what}.n is {v['n']!r}")
        require_base_unit(v["unit"], f"{where}: {what}")
    for key, t in data["tables"].items():
        what = f"tables.{key}"
        fields(t, what, columns=(list,), rows=(list,))
        for column in t["columns"]:
            fields(column, f"{what}.columns", name=_TEXT, unit=_TEXT)
            require_base_unit(column["unit"], f"{where}: {what}.{column['name']}")
        cells = [cell for row in t["rows"] for cell in row]
        need(all(len(row) == len(t["columns"]) for row in t["rows"]), f"{what} has ragged rows")
        need(all(isinstance(c, (str, int, float, none)) for c in cells), f"{what} has odd cells")
        need(not any(isinstance(c, float) and not math.isfinite(c) for c in cells),
             f"{what} holds a number that is not finite")
