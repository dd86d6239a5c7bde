"""`{result}` and `{result-table}`: a measured value in a page comes from results/ alone.

    {result}`gpu/limits/copy_bandwidth`               3,032 GB/s
    {result}`gpu/limits/copy_bandwidth | TB/s | .2f`  3.03 TB/s
    {result}`gpu/limits/@device`                      the card's name; also @date, @driver

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
from infero_book.pieces import ROOT

SPACE = "\N{NO-BREAK SPACE}"


def text_of(key: str) -> tuple[str, str]:
    """What `{result}` shows for "key | unit | format", and the value's provenance."""
    from infero import results

    key, unit, form = _parts(key)
    entry = key.rpartition("/")[2]
    if entry.startswith("@"):
        return _about(key, entry[1:]), ""
    value = results.get(key)
    return results.render(value.value, value.unit, unit, form), provenance(value)


def _parts(text: str) -> tuple[str, str, str]:
    first, second, third = ([part.strip() for part in text.split("|")] + ["", ""])[:3]
    return first, second, third


def _about(key: str, what: str) -> str:
    from infero import results

    facts = results.provenance(key)
    choices = {
        "device": facts["device"]["name"], "date": facts["date"][:10],
        "driver": facts["device"]["driver"], "command": facts["command"],
    }  # fmt: skip
    if what not in choices:
        raise ValueError(f"@{what} is not known; there are @{', @'.join(choices)}")
    return str(choices[what])


def provenance(value: Any) -> str:
    """One line on where a value comes from: device, date, samples, spread."""
    parts = [value.device, value.date[:10], f"n = {value.n}"]
    if value.spread is not None:
        parts.append(f"spread {value.spread:.1%}")
    return "measured: " + ", ".join(parts)


class ResultRole(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            text, where = text_of(self.text)
        except Exception as error:
            return [problems.report(self.env, f"result {self.text!r}: {error}", self.lineno)], []
        note_files(self.env, self.text)
        return [ResultNode("", text, classes=["infero-result"], title=where)], []


def note_files(env: Any, key: str) -> None:
    """Let Sphinx read the page again when the results file of `key` changes."""
    device, name = key.split("/")[:2]
    for slug in ("h100", "h200") if device == "gpu" else (device,):
        env.note_dependency(str(ROOT / "results" / slug / f"{name}.json"))


class ResultNode(nodes.inline):
    """A measured value, with where it comes from as its title."""


def _visit_html(self: Any, node: nodes.Element) -> None:
    more = {"title": node["title"]} if node["title"] else {}
    self.body.append(self.starttag(node, "span", "", **more))


def _depart_html(self: Any, node: nodes.Element) -> None:
    self.body.append("</span>")


def _pass(self: Any, node: nodes.Element) -> None:
    pass


class ResultTable(SphinxDirective):
    """A recorded table; `:columns: batch, time | ms | .2f` chooses, scales and formats."""

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
            message = f"result table {self.arguments[0]!r}: {error}"
            return [nodes.paragraph("", "", problems.report(self.env, message, self.lineno))]
        note_files(self.env, self.arguments[0])
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
    units = dict(table.columns)
    wanted = [_parts(text) for text in (columns.split(",") if columns else units)]
    heads, texts = [], []
    for name, unit, form in wanted:
        values = table.column(name)
        shown = unit or _usual_unit(values, units[name])
        words = name.replace("_", " ")
        heads.append(f"{words} ({shown})" if shown else words)
        texts.append([_cell(value, units[name], shown, form) for value in values])
    return heads, [list(row) for row in zip(*texts, strict=True)]


def _usual_unit(values: list[Any], base: str) -> str:
    """The display unit that suits the middle of a column."""
    from infero import results

    numbers = sorted(abs(v) for v in values if isinstance(v, int | float) and v)
    if not base or not numbers:
        return ""
    return results.render(numbers[len(numbers) // 2], base).partition(SPACE)[2]


def _cell(value: Any, base: str, unit: str, form: str) -> str:
    from infero import results

    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return results.render(value, base, unit, form).partition(SPACE)[0].removesuffix("%")


def _row(texts: list[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in texts))


def setup(app: Sphinx) -> None:
    app.add_node(
        ResultNode, html=(_visit_html, _depart_html), latex=(_pass, _pass), text=(_pass, _pass)
    )
    app.add_role("result", ResultRole())
    app.add_directive("result-table", ResultTable)
