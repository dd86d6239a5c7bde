"""What the site adds to a lab's page, which its notebook does not hold.

At build an exercise cell runs as an import of the reference. After each such cell the page says so
and keeps the reference's code folded, for readers who have done the exercise. A bar under the
title of chapter and lab links the two, says how to run the lab, and opens it in Colab once there
is a repository to open it from.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from infero_book import landing, pages, pieces

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
    code = "\n\n\n".join(
        [*(pieces.source(kernel).code for kernel in pieces.kernels(name)), found.code])
    block = nodes.literal_block(code, code, language="python")
    block["classes"] += ["infero-code"]
    link = pieces.SourceLink("", found.path, path=found.path, first=found.first, last=found.last)
    where = nodes.paragraph("", "", link, classes=["infero-source-line"])
    note += pieces.folded(f"The reference for {label} (do it first)", [block, where])
    sources = getattr(app.env, "infero_sources", set())
    sources.add(found.path)
    app.env.infero_sources = sources  # type: ignore[attr-defined]
    return note


class LabBar(nodes.General, nodes.Element):
    """The bar under a chapter's or a lab's title, filled when the page is written."""


def _add_bar(app: Sphinx, doctree: nodes.document) -> None:
    folder, _, stem = app.env.docname.rpartition("/")
    if folder not in ("book", "labs") or stem not in {row.stem for row in landing.chapters()}:
        return
    title = next(iter(doctree.findall(nodes.title)), None)
    if title is not None:
        title.parent.insert(title.parent.index(title) + 1, LabBar(stem=stem, folder=folder))


def _visit_bar(self: Any, node: nodes.Element) -> None:
    stem, builder = node["stem"], self.builder
    chapter = next(row for row in landing.chapters() if row.stem == stem)
    other = ("labs" if node["folder"] == "book" else "book") + "/" + stem
    parts = []
    if node["folder"] == "labs":
        parts.append("On your machine: <code>make lab</code>")
    if other in builder.env.found_docs:
        url = builder.get_relative_uri(builder.current_docname, other)
        minutes = landing.lab_minutes(chapter.number)
        lab = f"Lab {chapter.number}" + (f", about {minutes} minutes" if minutes else "")
        name = lab if node["folder"] == "book" else f"Chapter {chapter.number}: {chapter.title}"
        parts.append(f'<a href="{url}">{html.escape(name)}</a>')
    colab = pages.colab_url(f"labs/{stem}.ipynb")
    if colab:
        parts.append(f'<a class="infero-colab" href="{colab}">Open the lab in Colab</a>')
    if parts:
        items = "".join(f"<span>{part}</span>" for part in parts)
        self.body.append(f'<div class="infero-lab-links">{items}</div>\n')
    raise nodes.SkipNode


def _skip(self: Any, node: nodes.Element) -> None:
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_node(LabBar, html=(_visit_bar, None), latex=(_skip, None), text=(_skip, None))
    app.connect("doctree-read", _mark_references)
    app.connect("doctree-read", _add_bar)
