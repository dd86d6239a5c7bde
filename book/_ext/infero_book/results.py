"""`{result}` and `{result-table}`: a measured value in the text comes from results/, or nothing does.

    {result}`gpu/limits/copy_bandwidth`               3,032 GB/s
    {result}`gpu/limits/copy_bandwidth | TB/s | .2f`  3.03 TB/s
    {result}`gpu/limits/@device`                      the card's name

Every value carries its provenance (device, date, n, spread) in a title that shows on hover. A
missing key or a file of another schema stops the build, naming the key and the program to run.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from infero_book import problems

# Display unit -> (base unit, how many base units it is).
UNITS: dict[str, tuple[str, float]] = {
    "B": ("byte", 1), "kB": ("byte", 1e3), "MB": ("byte", 1e6), "GB": ("byte", 1e9),
    "KiB": ("byte", 2**10), "MiB": ("byte", 2**20), "GiB": ("byte", 2**30),
    "B/s": ("byte/s", 1), "MB/s": ("byte/s", 1e6), "GB/s": ("byte/s", 1e9),
    "TB/s": ("byte/s", 1e12),
    "FLOP/s": ("flop/s", 1), "GFLOP/s": ("flop/s", 1e9), "TFLOP/s": ("flop/s", 1e12),
    "s": ("s", 1), "ms": ("s", 1e-3), "µs": ("s", 1e-6), "us": ("s", 1e-6), "ns": ("s", 1e-9),
    "min": ("s", 60),
    "%": ("", 1e-2), "J": ("J", 1), "mJ": ("J", 1e-3), "kJ": ("J", 1e3), "W": ("W", 1),
    "tok/s": ("token/s", 1), "tokens/s": ("token/s", 1), "token/s": ("token/s", 1),
}  # fmt: skip


def scaled(value: float, base: str, unit: str) -> float:
    """`value`, given in `base`, in the display unit `unit`."""
    if unit == base:
        return value
    if unit not in UNITS:
        raise ValueError(f"{unit!r} is not a unit the book knows; it has {', '.join(UNITS)}")
    wanted, size = UNITS[unit]
    if wanted != base and not (unit == "%" and base in ("", "1", "ratio", "fraction")):
        raise ValueError(f"{unit!r} is a unit of {wanted or 'a ratio'}, the value is in {base!r}")
    return value / size


def written(value: Any, unit: str | None, form: str | None) -> str:
    """The text of an `infero.results.Value`, in its own words or in the unit and format asked for."""
    if not unit and not form:
        return str(value.text)
    number = scaled(value.value, value.unit, unit) if unit else value.value
    text = format(number, form) if form else f"{number:,.3g}"
    shown = unit if unit else value.unit
    if not shown:
        return text
    return f"{text}%" if shown == "%" else f"{text}\N{NO-BREAK SPACE}{shown}"


def provenance(value: Any) -> str:
    """One line on where a value comes from: device, date, samples, spread."""
    parts = [str(_device(value))]
    if getattr(value, "date", None):
        parts.append(str(value.date)[:10])
    if getattr(value, "n", None):
        parts.append(f"n = {value.n}")
    if getattr(value, "spread", None) is not None:
        parts.append(f"spread {value.spread:.1%}")
    return "measured: " + ", ".join(parts)


def _device(value: Any) -> str:
    device = getattr(value, "device", "")
    if isinstance(device, dict):
        return str(device.get("name") or device.get("slug"))
    return str(getattr(device, "name", device))


class ResultRole(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        key, unit, form = ([part.strip() for part in self.text.split("|")] + ["", ""])[:3]
        try:
            from infero import results

            value = results.get(key)
            if isinstance(value, str):
                return [nodes.inline("", value, classes=["infero-result"])], []
            text = written(value, unit, form)
        except Exception as error:
            return [problems.report(self.env, f"result {key!r}: {error}", self.lineno)], []
        node = ResultNode("", text, classes=["infero-result"], title=provenance(value))
        return [node], []


class ResultNode(nodes.inline):
    """A measured value, with where it comes from as its title."""


def _visit_html(self: Any, node: nodes.Element) -> None:
    self.body.append(self.starttag(node, "span", "", title=node["title"]))


def _depart_html(self: Any, node: nodes.Element) -> None:
    self.body.append("</span>")


def _pass(self: Any, node: nodes.Element) -> None:
    pass


class ResultTable(SphinxDirective):
    """A recorded table, `:columns: batch, time | ms | .2f` choosing, scaling and formatting."""

    required_arguments = 1
    option_spec = {
        "columns": directives.unchanged,
        "caption": directives.unchanged,
        "name": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        try:
            from infero import results

            table = results.table(self.arguments[0])
            heads, rows = cells_of(table, self.options.get("columns"))
        except Exception as error:
            mark = problems.report(
                self.env, f"result table {self.arguments[0]!r}: {error}", self.lineno
            )
            return [nodes.paragraph("", "", mark)]
        node = nodes.table(classes=["infero-result-table", "colwidths-auto"])
        if self.options.get("caption"):
            inline, messages = self.state.inline_text(self.options["caption"], self.lineno)
            node += [nodes.title("", "", *inline), *messages]
        group = nodes.tgroup(cols=len(heads))
        group += [nodes.colspec(colwidth=1) for _ in heads]
        group += nodes.thead("", _row(heads))
        group += nodes.tbody("", *(_row(row) for row in rows))
        node += group
        self.set_source_info(node)
        self.add_name(node)
        return [node]


def cells_of(table: Any, columns: str | None) -> tuple[list[str], list[list[str]]]:
    """The heads and the cells' text of a recorded table."""
    names = [_field(column, "name") for column in _field(table, "columns")]
    units = [_field(column, "unit") for column in _field(table, "columns")]
    wanted = [
        ([part.strip() for part in text.split("|")] + ["", ""])[:3]
        for text in (columns.split(",") if columns else names)
    ]
    heads, picked = [], []
    for name, unit, form in wanted:
        if name not in names:
            raise KeyError(f"there is no column {name!r}; there are {', '.join(names)}")
        index = names.index(name)
        shown = unit or units[index]
        heads.append(f"{name.replace('_', ' ')} ({shown})" if shown else name.replace("_", " "))
        picked.append((index, unit, form))
    rows = [
        [_cell(row[index], units[index], unit, form) for index, unit, form in picked]
        for row in _field(table, "rows")
    ]
    return heads, rows


def _cell(value: Any, base: str, unit: str, form: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    number = scaled(value, base, unit) if unit else value
    if form:
        return format(number, form)
    return f"{number:,}" if isinstance(number, int) else f"{number:,.4g}"


def _field(thing: Any, name: str) -> Any:
    return thing[name] if isinstance(thing, dict) else getattr(thing, name)


def _row(texts: list[str]) -> nodes.row:
    return nodes.row(
        "", *(nodes.entry("", nodes.paragraph("", text)) for text in texts)
    )


def setup(app: Sphinx) -> None:
    app.add_node(
        ResultNode, html=(_visit_html, _depart_html), latex=(_pass, _pass), text=(_pass, _pass)
    )
    app.add_role("result", ResultRole())
    app.add_directive("result-table", ResultTable)
