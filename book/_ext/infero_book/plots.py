"""`{plot}`: a figure drawn by code, once for the light page and once for the dark one.

    ```{plot} ch01_decode_timeline
    :alt: what the picture shows, for those who cannot see it
    :name: fig-decode-timeline
    The caption, with *markup*, maths and {result} roles.
    ```

It runs `draw(theme)` of book/figures/ch01_decode_timeline.py. The SVGs are kept in
_build/figures under a hash of the program, its style, infero/ and results/, so that a figure is
drawn again exactly when something it depends on has changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from infero_book import execution, problems

ROOT = Path(__file__).resolve().parents[3]
FIGURES = ROOT / "book" / "figures"


class PlotDirective(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {
        "alt": directives.unchanged_required,
        "name": directives.unchanged,
        "width": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            if not self.options.get("alt"):
                raise ValueError("it needs :alt:, the words for those who cannot see it")
            paths = drawn(name)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            mark = problems.report(self.env, f"plot {name!r}: {reason}", self.lineno)
            return [nodes.paragraph("", "", mark)]
        for file in (f"{name}.py", "style.py"):
            self.env.note_dependency(str(FIGURES / file))
        figure = nodes.figure(classes=["infero-plot"])
        box = ScrollBox(classes=["infero-scroll"])
        figure += box
        for theme, path in paths.items():
            uri = f"/{path.relative_to(ROOT).as_posix()}"
            image = nodes.image(uri=uri, alt=self.options["alt"])
            # Not the theme's only-dark: that class hides the caption that follows it.
            image["classes"] += ["dark-light", f"infero-{theme}"]
            if self.options.get("width"):
                image["width"] = self.options["width"]
            self.set_source_info(image)
            box += image
        if self.content:
            body = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, body)
            paragraphs = list(body.children)
            caption = nodes.caption("", "", *paragraphs[0].children)
            self.set_source_info(caption)
            figure += caption
            if len(paragraphs) > 1:
                figure += nodes.legend("", *paragraphs[1:])
        self.set_source_info(figure)
        self.add_name(figure)
        return [figure]


class ScrollBox(nodes.General, nodes.Element):
    """Holds a figure's pictures; on a narrow screen they keep a readable size and scroll."""


def _visit_box(self: Any, node: nodes.Element) -> None:
    words = {"role": "group", "aria-label": "Figure, scrolls sideways where it is wide"}
    self.body.append(self.starttag(node, "div", **words))


def _depart_box(self: Any, node: nodes.Element) -> None:
    self.body.append("</div>\n")


def _pass(self: Any, node: nodes.Element) -> None:
    pass


def drawn(name: str) -> dict[str, Path]:
    """The figure's SVG files, "light" and "dark", drawn if there are none of this state."""
    program = FIGURES / f"{name}.py"
    if not re.fullmatch(r"[a-z0-9_]+", name) or not program.is_file():
        raise FileNotFoundError(f"there is no book/figures/{name}.py")
    digest = hashlib.sha256()
    for path in (program, FIGURES / "style.py"):
        digest.update(path.read_bytes())
    digest.update(execution.tree_hash(ROOT / "infero", ROOT / "results").encode())
    folder = ROOT / "_build" / "figures"
    stem = f"{name}-{digest.hexdigest()[:12]}"
    paths = {theme: folder / f"{stem}-{theme}.svg" for theme in ("light", "dark")}
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for theme, text in draw(program).items():
            partial = paths[theme].with_suffix(f".{os.getpid()}.part")
            partial.write_text(text, encoding="utf-8")
            partial.replace(paths[theme])
    return paths


def draw(program: Path) -> dict[str, str]:
    """The SVG text of a figure program in both themes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if str(FIGURES) not in sys.path:
        sys.path.insert(0, str(FIGURES))
    import style

    module = _load(program)
    texts = {}
    for name in ("light", "dark"):
        theme = style.theme(name)
        with plt.rc_context(theme.rc(salt=program.stem)):
            figure = module.draw(theme)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
            plt.close("all")
        texts[name] = _shrunk(buffer.getvalue())
    return texts


def _load(program: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"infero_figure_{program.stem}", program)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _shrunk(svg: str) -> str:
    """Drop what a browser does not need: XML prologue and metadata."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", svg, flags=re.S)
    return svg.strip() + "\n"


def setup(app: Sphinx) -> None:
    other = (_pass, _pass)
    app.add_node(ScrollBox, html=(_visit_box, _depart_box), latex=other, text=other)
    app.add_directive("plot", PlotDirective)
