"""Cards in plain text and in HTML."""

from __future__ import annotations

import io
import re
import sys
from html.parser import HTMLParser

import pytest

from infero.lab import render
from infero.lab.render import Card, Table

CARD = Card("failed", "Lab 1: `top_p`", [
    "Row 2 keeps `<b>` & more.\n    x = a < b\nEnd",
    Table(("piece", "whose"), [("`a.b`", "yours"), ("c<d", "reference")]),
])  # fmt: skip


def test_plain() -> None:
    assert CARD.plain().splitlines() == [
        "✗ Not yet: Lab 1: top_p",
        "  Row 2 keeps <b> & more.",
        "      x = a < b",
        "  End",
        "  piece  whose",
        "  a.b    yours",
        "  c<d    reference",
    ]
    assert repr(CARD) == CARD.plain()


class Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_sound_escaped_and_self_contained() -> None:
    text = CARD.html()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "&lt;b&gt;" in text
    assert "a &lt; b" in text
    assert "<b>" not in text
    assert {tag for tag, _ in parser.tags} <= {
        "div", "span", "pre", "code", "table", "thead", "tbody", "tr", "th", "td"
    }  # fmt: skip
    for word in ("<style", "<script", "class=", "id=", "url(", "http"):
        assert word not in text, word


@pytest.mark.parametrize("kind", render.KINDS)
def test_text_takes_the_colour_of_the_page(kind: str) -> None:
    text = Card(kind, "title", CARD.body).html()
    colours = re.findall(r"(?<![-\w])(?:color|background)\s*:\s*([^;\"]+)", text)
    assert set(colours) <= {"inherit", "transparent"}
    assert re.search(r"[\w▸]", text)


@pytest.mark.parametrize("kind", [k for k in render.KINDS if k != "info"])
def test_never_by_colour_alone(kind: str) -> None:
    sign, word, _ = render.KINDS[kind]
    assert word
    assert sign
    assert word in Card(kind, "").plain()
    assert len({render.KINDS[k][0] for k in render.KINDS}) == len(render.KINDS)


def contrast(colour: str, page: str) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it."""

    def luminance(text: str) -> float:
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    a, b = sorted((luminance(colour), luminance(page)))
    return (b + 0.05) / (a + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#121212", "#1e1e1e"])
@pytest.mark.parametrize("kind", render.KINDS)
def test_the_bar_can_be_seen(kind: str, page: str) -> None:
    assert contrast(render.KINDS[kind][2], page) >= 3


def test_mimebundle() -> None:
    bundle = CARD._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/html"] == CARD._repr_html_()


def test_a_terminal_that_knows_few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    CARD.show()
    sys.stdout.flush()
    assert b"Not yet: Lab 1" in raw.getvalue()
