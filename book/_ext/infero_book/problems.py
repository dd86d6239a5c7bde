"""What stops a build: problems of the pages, gathered while reading and raised together.

A missing result is worth one message that names every place, not one build a place. In a draft
(`infero_draft`, set by the page builder) they are warnings instead.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)


def report(env: BuildEnvironment, message: str, line: int | None = None) -> nodes.inline:
    """Remember a problem of the page being read; returns the mark that shows where it was."""
    where = f"{env.docname}:{line}" if line else env.docname
    if env.config.infero_draft:
        logger.warning(message, location=(env.docname, line), type="infero", subtype="draft")
    else:
        _of(env).setdefault(env.docname, []).append(f"{where}: {message}")
    return nodes.inline("", f"⟦{message.splitlines()[0]}⟧", classes=["infero-missing"])


def _of(env: BuildEnvironment) -> dict[str, list[str]]:
    if not hasattr(env, "infero_problems"):
        env.infero_problems = {}  # type: ignore[attr-defined]
    return env.infero_problems  # type: ignore[attr-defined,no-any-return]


def _forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    _of(env).pop(docname, None)


def _read_again(app: Sphinx, env: BuildEnvironment, *changes: set[str]) -> list[str]:
    """Pages with problems are read at every build: what they lack may be there by now."""
    return list(_of(env))


def _raise(app: Sphinx, env: BuildEnvironment) -> None:
    found = [text for texts in _of(env).values() for text in texts]
    if found:
        raise ExtensionError("the book does not build:\n  " + "\n  ".join(found))


def setup(app: Sphinx) -> None:
    app.connect("env-purge-doc", _forget)
    app.connect("env-get-outdated", _read_again)
    app.connect("env-check-consistency", _raise)

