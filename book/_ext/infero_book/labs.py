"""What a lab's page says that its notebook does not: whose output is shown.

At build an exercise cell runs as an import of the reference. After each such cell the page says so and
keeps the reference's code folded, for readers who have done the exercise.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from infero_book import pieces

EXERCISE = re.compile(r"\A\s*#\|\s*exercise:\s*([\w.]+)\s*$", re.MULTILINE)


def _mark_references(app: Sphinx, doctree: nodes.document) -> None:
    if not app.env.docname.startswith("labs/"):
        return
    for cell in list(doctree.findall(nodes.container)):
        if "cell" not in cell["classes"] or cell.get("nb_element") != "cell_code":
            continue
        source = next(iter(cell.findall(nodes.literal_block)), None)
        found = EXERCISE.match(source.astext()) if source is not None else None
        if found:
            cell.parent.insert(cell.parent.index(cell) + 1, reference_note(app, found.group(1)))


def reference_note(app: Sphinx, name: str) -> nodes.container:
    """The words below an exercise cell, with the reference's code folded."""
    row = pieces.table().get(name)
    label = row.label if row else "this exercise"
    note = nodes.container(classes=["infero-reference-note"])
    note += nodes.paragraph(
        "",
        "",
        nodes.Text("On this page the cell above ran as the reference, so the output below is the "
                   "reference's. In your notebook it is yours."),
    )  # fmt: skip
    found = pieces.source(name)
    block = nodes.literal_block(found.code, found.code, language="python")
    block["classes"] += ["infero-code"]
    link = pieces.SourceLink("", found.path, path=found.path, first=found.first, last=found.last)
    where = nodes.paragraph("", "", link, classes=["infero-source-line"])
    note += pieces.folded(f"The reference for {label} (do it first)", [block, where])
    sources = getattr(app.env, "infero_sources", set())
    sources.add(found.path)
    app.env.infero_sources = sources  # type: ignore[attr-defined]
    return note


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", _mark_references)


__all__: list[Any] = ["reference_note", "setup"]
