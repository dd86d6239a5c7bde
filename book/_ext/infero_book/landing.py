"""The landing page's map of the engine and list of chapters, both from book/chapters.yml.

    ```{engine-map}
    ```
    ```{chapter-list}
    ```

The map is drawn twice as SVG, for wide and for narrow screens, of which the style sheet shows one.
A chapter is a link once its page is part of the site, and says "planned" until then.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from infero_book import pages

ROOT = Path(__file__).resolve().parents[3]
BANDS = {
    "capstone": "ALL TOGETHER",
    "serving": "TO THE WORLD",
    "engine": "THE ENGINE'S LOOP",
    "memory": "WHAT IT REMEMBERS",
    "model": "THE MODEL",
    "weights": "SMALLER WEIGHTS",
    "kernels": "ON THE GPU",
    "measure": "WHAT IT CAN COST, WHAT IT DOES COST",
}


@dataclass(frozen=True)
class Chapter:
    """One row of chapters.yml, numbered by its place."""

    number: int
    stem: str
    band: str
    short: str
    title: str
    line: str


@cache
def chapters(root: Path = ROOT) -> tuple[Chapter, ...]:
    rows = yaml.safe_load((root / "book" / "chapters.yml").read_text(encoding="utf-8"))
    return tuple(Chapter(number, **row) for number, row in enumerate(rows, start=1))


class Landing(nodes.General, nodes.Element):
    """Filled when the page is written, as only then the site's pages are known."""


class MapDirective(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [Landing(kind="map")]


class ListDirective(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [Landing(kind="list")]


def _visit(self: Any, node: nodes.Element) -> None:
    builder = self.builder
    here = builder.current_docname
    found = builder.env.found_docs

    def link(page: str) -> str:
        return builder.get_relative_uri(here, page) if page in found else ""

    self.body.append(engine_map(link) if node["kind"] == "map" else chapter_list(link))
    raise nodes.SkipNode


def engine_map(link: Any) -> str:
    """Both drawings of the map; `link(page)` is a page's address, "" where there is none."""
    wide = _drawing(link, "map-wide", width=760, left=150, per_row=3)
    narrow = _drawing(link, "map-narrow", width=360, left=0, per_row=2)
    return f'<div class="infero-map">\n{wide}\n{narrow}\n</div>\n'


def _drawing(link: Any, name: str, width: int, left: int, per_row: int) -> str:
    gap, tall, pad = 8, 40, 9
    shapes: list[str] = []
    y = 0.0
    for band, words in BANDS.items():
        rows = [chapter for chapter in chapters() if chapter.band == band]
        columns = min(per_row, len(rows)) if left else per_row
        lines = [rows[i : i + columns] for i in range(0, len(rows), columns)]
        head = 0 if left else 17
        height = 2 * pad + head + len(lines) * tall + (len(lines) - 1) * gap
        shapes.append(
            f'<rect class="map-band" x="0" y="{y:g}" width="{width}" height="{height:g}" rx="8"/>'
        )
        shapes.append(_band_name(words, y, height, left, pad))
        for row, line in enumerate(lines):
            room = width - left - pad - (0 if left else pad)
            span = (room - gap * (len(line) - 1)) / len(line)
            for column, chapter in enumerate(line):
                x = left + (0 if left else pad) + column * (span + gap)
                top = y + pad + head + row * (tall + gap)
                shapes.append(_box(chapter, link(f"book/{chapter.stem}"), x, top, span, tall))
        y += height + 7
    title = "The engine, part by part: each box is a chapter that builds it"
    return (
        f'<svg class="{name}" viewBox="0 0 {width} {y - 7:g}" role="group" aria-label="{title}">'
        + "".join(shapes)
        + "</svg>"
    )


def _band_name(words: str, y: float, height: float, left: int, pad: int) -> str:
    if not left:
        label = html.escape(words)
        return f'<text class="map-band-name" x="{pad + 2}" y="{y + 19:g}">{label}</text>'
    lines = [words] if len(words) < 20 else words.split(", ")
    lines = [part for line in lines for part in _wrapped(line, 18)]
    top = y + height / 2 - (len(lines) - 1) * 7.5 + 4
    return "".join(
        f'<text class="map-band-name" x="14" y="{top + 15 * i:g}">{html.escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def _wrapped(text: str, limit: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= limit:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _box(chapter: Chapter, url: str, x: float, y: float, width: float, height: float) -> str:
    middle = y + height / 2 + 4.5
    drawing = (
        f'<rect class="map-box" x="{x:.1f}" y="{y:.1f}"'
        f' width="{width:.1f}" height="{height}" rx="6"/>'
        f'<text class="map-number" x="{x + 11:.1f}" y="{middle:.1f}">{chapter.number}</text>'
        f'<text x="{x + 33:.1f}" y="{middle:.1f}">{html.escape(chapter.short)}</text>'
    )
    if not url:
        return f"<g><title>{html.escape(chapter.title)}: planned</title>{drawing}</g>"
    label = html.escape(f"Chapter {chapter.number}: {chapter.title}", quote=True)
    return f'<a href="{url}" aria-label="{label}">{drawing}</a>'


def chapter_list(link: Any) -> str:
    """The twenty chapters with a line each; written ones are linked, with their labs."""
    items = []
    for chapter in chapters():
        url, lab = link(f"book/{chapter.stem}"), link(f"labs/{chapter.stem}")
        title = html.escape(chapter.title)
        head = f'<a href="{url}">{title}</a>' if url else title
        head = f'<span class="ch-title">{head}</span>'
        if not url:
            head += '<span class="ch-planned">planned</span>'
        line = f'<span class="ch-line">{html.escape(chapter.line)}</span>'
        items.append(
            f'<li><span class="ch-number">{chapter.number}</span><div>{head}{line}'
            f"{lab_links(chapter, lab)}</div></li>"
        )
    return '<ol class="infero-chapters">\n' + "\n".join(items) + "\n</ol>\n"


def lab_links(chapter: Chapter, url: str) -> str:
    """A lab's page and, once the repository has a name, its Colab link."""
    if not url:
        return ""
    minutes = lab_minutes(chapter.number)
    time = f", about {minutes} minutes" if minutes else ""
    text = f'<a href="{url}">Lab {chapter.number}</a>{time}'
    colab = pages.colab_url(f"labs/{chapter.stem}.ipynb")
    if colab:
        name = f"Open lab {chapter.number} in Colab"
        text += f' · <a href="{colab}" aria-label="{name}">Open in Colab</a>'
    return f'<span class="ch-links">{text}</span>'


def lab_minutes(number: int) -> int:
    from infero.lab.pieces import LABS

    return next((lab.minutes for lab in LABS if int(lab.number) == number), 0)


def _skip(self: Any, node: nodes.Element) -> None:
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_node(Landing, html=(_visit, None), latex=(_skip, None), text=(_skip, None))
    app.add_directive("engine-map", MapDirective)
    app.add_directive("chapter-list", ListDirective)


