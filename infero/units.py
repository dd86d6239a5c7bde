"""Numbers with units, written for reading: 3.032e12 byte/s is "3,032 GB/s".

Results files and the engine compute in base units (s, byte, byte/s, flop/s, token/s, J, W, plain
ratios); only text for a person is scaled, here.
"""

from __future__ import annotations

import re

from infero.errors import InferoError


class UnitError(InferoError, ValueError):
    """A unit that cannot be used where it stands."""


_PREFIXES = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"),
             (1e-6, "µ"), (1e-9, "n")]
_SYMBOLS = {"byte/s": "B/s", "byte": "B", "flop/s": "FLOP/s", "flop": "FLOP", "s": "s", "W": "W",
            "J": "J", "Hz": "Hz"}
_PLAIN = {"": "", "token/s": "tokens/s", "token": "tokens", "J/token": "J/token",
          "request/s": "requests/s", "percent": "%"}


def render(value: float, unit: str, as_unit: str = "", spec: str = "") -> str:
    """A number with its unit for reading: `render(3.032e12, "byte/s") == "3,032 GB/s"`.

    `as_unit` asks for a certain scaled unit ("GB/s"), `spec` for a format (".0f").
    """
    scale, symbol = _scaled(value, unit, as_unit)
    number = value / scale
    if spec and "," not in spec:
        spec = "," + spec
    text = format(number, spec) if spec else _short(number)
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
        raise UnitError(f"A value in {unit!r} cannot be shown in {as_unit!r}; use a scaled form "
                        f"of {symbol}.")
    if unit not in _SYMBOLS or value == 0:
        return 1.0, symbol
    if unit == "byte/s" and 1e12 <= abs(value) < 1e13:
        return 1e9, "GB/s"  # memory bandwidth reads better as 3,032 GB/s than as 3.03 TB/s
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale * 0.9995 and (unit != "s" or scale <= 1):
            return scale, prefix + symbol
    return _PREFIXES[-1][0], _PREFIXES[-1][1] + symbol


def _short(number: float) -> str:
    """Three significant digits, whole numbers from 100 up, with thousands separated."""
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    if abs(number) >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.3g}"


_SCALED = re.compile(
    r"([TGMk](i?B|B/s|FLOP/s|Hz|J|W|iB/s)|[mµun]s|m[JW]|B|B/s|FLOP/s|tok/s|tokens/s|tokens|%)"
)


def require_base_unit(unit: str, where: str) -> None:
    """Raise UnitError where `unit` is a scaled one: a record holds base units only."""
    if _SCALED.fullmatch(unit):
        raise UnitError(f"{where} is recorded in {unit!r}; record base units (s, byte, byte/s, "
                        "flop/s, token/s, J, W, plain ratios), reading scales them")
