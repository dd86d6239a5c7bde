"""Chapters keep their numbers while others are not written yet.

Sphinx counts the pages of the table of contents. A chapter's number is the one in its file's name:
`book/07_the_kv_cache` is chapter 7, its figures 7.1 and on, though it may stand fourth in the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

_CHAPTER = re.compile(r"(?:^|/)(\d\d)_[^/]*$")


def chapter_of(page: str) -> int | None:
    """The number in a page's file name, or None."""
    found = _CHAPTER.search(page)
    return int(found[1]) if found else None


def renumber(env: BuildEnvironment) -> None:
    """Replace the first part of every section number of a chapter by the chapter's own."""
    for page, sections in env.toc_secnumbers.items():
        chapter = chapter_of(page)
        if chapter is None:
            continue
        for anchor, number in sections.items():
            if number:
                sections[anchor] = (chapter, *number[1:])
        titled: list[Any] = list(env.tocs[page].findall(nodes.reference))
        titled += [env.titles[page]] if page in env.titles else []
        for node in titled:
            if node.get("secnumber"):
                node["secnumber"] = [chapter, *node["secnumber"][1:]]


def _patch(app: Sphinx) -> None:
    """Renumber after whichever collector counts: Sphinx's own, or an extension's subclass of it."""
    classes = [TocTreeCollector, *TocTreeCollector.__subclasses__()]
    for collector in classes:
        original: Callable[..., list[str]] | None = vars(collector).get("assign_section_numbers")
        if original is not None and not getattr(original, "infero", False):
            collector.assign_section_numbers = _wrapped(original)  # type: ignore[method-assign]


def _wrapped(original: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def assign(self: TocTreeCollector, env: BuildEnvironment) -> list[str]:
        pages = original(self, env)
        renumber(env)
        return pages

    assign.infero = True  # type: ignore[attr-defined]
    return assign


def setup(app: Sphinx) -> None:
    # Late, so that an extension that numbers across parts has put its own version there first.
    app.connect("builder-inited", _patch, priority=900)
