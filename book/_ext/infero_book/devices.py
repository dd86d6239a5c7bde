"""`{hardware-table}`: the devices of infero.hardware as a table, each with a link to its source.

    ```{hardware-table}
    :caption: Datasheet limits.
    :name: table-devices
    ```
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from infero_book.pieces import ROOT

HEADS = ("device", "memory GB", "reads GB/s", "16-bit TFLOP/s", "8-bit TFLOP/s", "ridge flop/B",
         "cache MiB", "link GB/s", "power W", "year")


def cells(row: Any) -> list[str]:
    """One device as text, in the order of HEADS without the name."""
    rates = row.peak_flops_per_s
    half = rates.get("bf16", rates.get("fp16", 0.0))
    eight = max(rates.get("fp8", 0.0), rates.get("int8", 0.0))
    link = "–" if row.link_bytes_per_s is None else f"{row.link_bytes_per_s / 1e9:,.0f}"
    return [
        f"{row.memory_bytes / 1e9:,.0f}", f"{row.bandwidth_bytes_per_s / 1e9:,.0f}",
        f"{half / 1e12:,.0f}", f"{eight / 1e12:,.0f}" if eight else "–",
        f"{half / row.bandwidth_bytes_per_s:,.0f}",
        f"{row.l2_bytes / 2**20:,.0f}" if row.l2_bytes else "–", link,
        f"{row.tdp_w:,.0f}" if row.tdp_w else "–", row.date,
    ]  # fmt: skip


class HardwareTable(SphinxDirective):
    """Every device of `infero.hardware.DEVICES`; its name links to the source of its numbers."""

    option_spec = {"caption": directives.unchanged, "name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        from infero import hardware

        self.env.note_dependency(str(ROOT / "infero" / "hardware.py"))
        table = nodes.table(classes=["infero-result-table", "colwidths-auto"])
        if self.options.get("caption"):
            inline, messages = self.state.inline_text(self.options["caption"], self.lineno)
            table += [nodes.title("", "", *inline), *messages]
        group = nodes.tgroup(cols=len(HEADS))
        group += [nodes.colspec(colwidth=1) for _ in HEADS]
        group += nodes.thead("", nodes.row("", *(entry(text) for text in HEADS)))
        body = nodes.tbody()
        for row in hardware.DEVICES.values():
            name = row.name.removeprefix(f"{row.vendor} ").replace(" ", "\N{NO-BREAK SPACE}")
            link = nodes.reference("", name, refuri=row.url, reftitle=row.source)
            first = nodes.entry("", nodes.paragraph("", "", link))
            body += nodes.row("", first, *(entry(text) for text in cells(row)))
        group += body
        table += group
        self.set_source_info(table)
        self.add_name(table)
        return [table]


def entry(text: str) -> nodes.entry:
    """A cell."""
    return nodes.entry("", nodes.paragraph(text, text))


def setup(app: Sphinx) -> None:
    app.add_directive("hardware-table", HardwareTable)
