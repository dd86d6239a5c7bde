"""Cards: what the labs say, in a notebook and in plain text.

The HTML carries its own inline styles, takes its text colour from the page (so it reads in light
and dark) and never speaks by colour alone: every card opens with a sign and a word. In words, `x`
is code and lines indented by four spaces are a block of code.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infero.lab import cells

#: sign, word and colour of the bar at the left edge (decoration: the word says the same)
KINDS = {
    "passed": ("✓", "Passed", "#009e73"),
    "failed": ("✗", "Not yet", "#d55e00"),
    "unfinished": ("…", "Not written yet", "#8a8a8a"),
    "info": ("▸", "", "#2f7fc1"),
    "warning": ("!", "Note", "#b07d00"),
    "replay": ("⟲", "Replayed", "#8a63b8"),
}
_BOX = (
    "border:1px solid rgba(128,128,128,.45);border-left:5px solid {colour};border-radius:4px;"
    "padding:.5em .9em;margin:.4em 0;max-width:52em;line-height:1.45"
)
_CODE = "color:inherit;background:transparent;border:0;padding:0;font-size:.95em"
_CELL = "text-align:left;padding:.1em 1.2em .1em 0;border:0;color:inherit;background:transparent"


@dataclass
class Table:
    """Rows of short texts under a row of headings."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Card:
    """A message: its kind, a title, and paragraphs or tables."""

    kind: str
    title: str
    body: Sequence[str | Table] = field(default_factory=list)

    def heading(self) -> str:
        sign, word, _ = KINDS[self.kind]
        return f"{sign} {word}{': ' if word and self.title else ''}{self.title}"

    def plain(self) -> str:
        lines = [self.heading().replace("`", "")]
        for part in self.body:
            text = plain_table(part) if isinstance(part, Table) else part.replace("`", "")
            lines += ["  " + line if line else "" for line in text.splitlines()]
        return "\n".join(lines)

    def html(self) -> str:
        sign, word, colour = KINDS[self.kind]
        heading = inline(f"{word}{': ' if word and self.title else ''}{self.title}")
        parts = [
            f'<div style="{_BOX.format(colour=colour)}">'
            f'<div style="font-weight:600"><span aria-hidden="true">{sign}</span> {heading}</div>'
        ]
        parts += [html_table(p) if isinstance(p, Table) else paragraphs(p) for p in self.body]
        return "".join(parts) + "</div>"

    def __repr__(self) -> str:
        return self.plain()

    def _repr_html_(self) -> str:
        return self.html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.plain(), "text/html": self.html()}

    def show(self) -> None:
        """Display the card: rich in a notebook, as text elsewhere."""
        if cells.shell() is not None:
            from IPython.display import display

            display(self)
        else:
            say(self.plain())


def say(text: str) -> None:
    """Print, also where the terminal knows few characters (Windows)."""
    try:
        print(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, errors="replace").decode(encoding))


def inline(text: str) -> str:
    """Escaped text with `x` as code."""
    escaped = html.escape(text, quote=False)
    return re.sub(r"`([^`\n]+)`", rf'<code style="{_CODE}">\1</code>', escaped)


def paragraphs(text: str) -> str:
    """Words as paragraphs, indented lines as blocks of code."""
    out: list[str] = []
    for line in text.splitlines():
        if line.startswith("    "):
            out.append(
                f'<pre style="{_CODE};margin:.2em 0 .2em 1.5em;white-space:pre-wrap" tabindex="0">'
                f"{html.escape(line[4:], quote=False)}</pre>"
            )
        elif line.strip():
            out.append(f'<div style="margin:.25em 0">{inline(line)}</div>')
    return "".join(out)


def plain_table(table: Table) -> str:
    rows = [[cell.replace("`", "") for cell in row] for row in [table.columns, *table.rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def html_table(table: Table) -> str:
    head = "".join(
        f'<th scope="col" style="{_CELL};font-weight:600">{inline(c)}</th>' for c in table.columns
    )
    rows = "".join(
        '<tr style="background:transparent">'
        + "".join(f'<td style="{_CELL}">{inline(c)}</td>' for c in row)
        + "</tr>"
        for row in table.rows
    )
    return (
        '<table style="border-collapse:collapse;border:0;margin:.3em 0;color:inherit;'
        f'font-size:1em"><thead><tr style="background:transparent">{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
