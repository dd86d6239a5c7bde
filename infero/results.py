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
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infero.errors import InferoError

SCHEMA = 1
GPU_ALIASES = ("h100", "h200")  # what `gpu/…` means, first present wins
KEYS = {"schema", "name", "device", "software", "commit", "date", "command", "values", "tables"}
DEVICE_KEYS = {"slug", "kind", "name", "driver", "memory_bytes", "cores"}


class ResultMissing(InferoError, KeyError):
    """No such measured number. The message names near matches and the program to run."""

    def __str__(self) -> str:
        return str(self.args[0])


class ResultInvalid(InferoError):
    """A results file does not follow the schema."""


@dataclass(frozen=True)
class Value:
    """One measured number. `spread` is the interquartile range over the median."""

    key: str
    value: float
    unit: str
    n: int
    spread: float | None
    note: str
    device: str
    date: str

    @property
    def text(self) -> str:
        """The number scaled for reading, with its unit: "3,032 GB/s"."""
        return render(self.value, self.unit)

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
    raise ResultMissing(
        f"There is no results file {device}/{name}.json in {root()}.{hint} "
        f"Measure it with: python -m benchmarks.{name}"
    )


@functools.lru_cache(maxsize=64)
def _read(path: Path, _mtime_ns: int) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ResultInvalid(f"{path} is not JSON ({problem}); measure it again.") from problem
    validate(data, str(path))
    return data


def get(key: str) -> Value:
    """The value of `device/name/value`, for example `gpu/limits/copy_bandwidth`."""
    device, name, value = _split(key)
    data = load(device, name)
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
            f"(near: {', '.join(near) or 'none'}). Measure it with: {data['command']}")


# ---------------------------------------------------------------- rendering

_PREFIXES = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"),
             (1e-6, "µ"), (1e-9, "n")]
_SYMBOLS = {"byte/s": "B/s", "byte": "B", "flop/s": "FLOP/s", "flop": "FLOP", "s": "s", "W": "W",
            "J": "J", "hertz": "Hz"}
_PLAIN = {"": "", "token/s": "tokens/s", "token": "tokens", "J/token": "J/token",
          "request/s": "requests/s", "percent": "%"}


def render(value: float, unit: str, as_unit: str = "", spec: str = "") -> str:
    """A number with its unit for reading: `render(3.032e12, "byte/s") == "3,032 GB/s"`.

    `as_unit` asks for a certain scaled unit ("GB/s"), `spec` for a format (".0f").
    """
    scale, symbol = _scaled(value, unit, as_unit)
    number = value / scale
    text = format(number, "," + spec if spec and "," not in spec else spec) if spec else _short(number)
    return f"{text}\N{NO-BREAK SPACE}{symbol}" if symbol and symbol != "%" else text + symbol


def _scaled(value: float, unit: str, as_unit: str) -> tuple[float, str]:
    symbol = _SYMBOLS.get(unit, _PLAIN.get(unit, unit))
    if as_unit == "%" and unit == "":
        return 0.01, "%"
    if as_unit:
        for scale, prefix in _PREFIXES:
            if as_unit in (prefix + symbol, symbol if scale == 1 else None):
                return scale, as_unit
        binary = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
        if unit == "byte" and as_unit in binary:
            return binary[as_unit], as_unit
        raise ResultInvalid(f"A value in {unit!r} cannot be shown in {as_unit!r}; use a scaled form "
                            f"of {symbol}.")
    if unit not in _SYMBOLS or value == 0:
        return 1.0, symbol
    if unit == "byte/s" and 1e12 <= abs(value) < 1e13:
        return 1e9, "GB/s"  # memory bandwidth reads better as 3,032 GB/s than as 3.03 TB/s
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale * 0.9995:
            return scale, prefix + symbol
    return _PREFIXES[-1][0], _PREFIXES[-1][1] + symbol


def _short(number: float) -> str:
    """Three significant digits, whole numbers from 100 up, with thousands separated."""
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    if abs(number) >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.3g}"


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
        if isinstance(samples, (int, float)):
            middle, count = float(samples), n or 1
        else:
            ordered = sorted(float(s) for s in samples)
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
        self.tables[key] = {"columns": [{"name": c, "unit": u} for c, u in columns],
                            "rows": [list(r) for r in rows]}


@contextmanager
def record(name: str, *, argv: Sequence[str] | None = None, out: str | Path | None = None,
           device: str | None = None) -> Iterator[Recorder]:
    """Collect a benchmark's numbers and write `OUT/DEVICE/NAME.json` when the block ends well.

    `argv` are the program's own arguments, without `--out`; `device` is "cuda" or "cpu" (default:
    cuda where there is one). An exception inside the block leaves an older file untouched.
    """
    from infero import provenance as here

    recorder = Recorder(name)
    yield recorder
    info = here.device_info(device)
    data = {
        "schema": SCHEMA, "name": name, "device": info, "software": here.software(),
        "commit": here.commit(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m", f"benchmarks.{name}", *_without_out(argv or [])]),
        "values": recorder.values, "tables": recorder.tables,
    }
    validate(data, name)
    folder = Path(out) if out else root()
    path = folder / info["slug"] / f"{name}.json"
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
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


def validate(data: Any, where: str = "results") -> None:
    """Raise ResultInvalid, naming the field, unless `data` follows the schema."""

    def need(holds: bool, words: str) -> None:
        if not holds:
            raise ResultInvalid(f"{where}: {words}")

    need(isinstance(data, dict), "the file must hold an object")
    need(data.get("schema") == SCHEMA,
         f"schema is {data.get('schema')!r}, this code reads {SCHEMA}; measure it again")
    need(set(data) == KEYS, f"fields differ from the schema: {sorted(set(data) ^ KEYS)}")
    device = data["device"]
    need(isinstance(device, dict) and set(device) == DEVICE_KEYS, "device has other fields")
    need(device["kind"] in ("cuda", "cpu"), f"device kind {device['kind']!r}")
    need(bool(re.fullmatch(r"python -m benchmarks\.\w+.*", data["command"])),
         f"command {data['command']!r} is no `python -m benchmarks.NAME`")
    try:
        dt.datetime.fromisoformat(data["date"])
    except (TypeError, ValueError):
        need(False, f"date {data['date']!r} is not ISO 8601")
    for key, v in data["values"].items():
        need(set(v) == {"value", "unit", "n", "spread", "note"}, f"value {key!r} has other fields")
        need(isinstance(v["value"], (int, float)) and v["value"] == v["value"],
             f"value {key!r} is {v['value']!r}, not a number")
        need(isinstance(v["n"], int) and v["n"] >= 1, f"value {key!r} has n = {v['n']!r}")
    for key, t in data["tables"].items():
        width = len(t["columns"])
        need(all(len(row) == width for row in t["rows"]), f"table {key!r} has ragged rows")
