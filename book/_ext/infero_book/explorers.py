"""`{explorer}`: an interactive chart in the page, with a table for those who cannot run it.

    ```{explorer} roofline
    ```

book/explorers/NAME.js is an ES module that draws into the element it is given; NAME.py beside it
has `data()`, exported to NAME.json, and `fallback()`, the table. Formulae in the module are checked
against the engine's in a browser (tests/book/test_explorers.py).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from infero_book import problems

ROOT = Path(__file__).resolve().parents[3]
EXPLORERS = ROOT / "book" / "explorers"


def program(name: str) -> Any:
    """The module book/explorers/NAME.py."""
    path = EXPLORERS / f"{name}.py"
    if not path.is_file() or not path.with_suffix(".js").is_file():
        raise FileNotFoundError(f"there is no book/explorers/{name}.py with its {name}.js")
    spec = importlib.util.spec_from_file_location(f"infero_explorer_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Explorer(nodes.General, nodes.Element):
    """The place in the page that the explorer's module fills."""


class ExplorerDirective(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            fallback = program(name).fallback()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            mark = problems.report(self.env, f"explorer {name!r}: {reason}", self.lineno)
            return [nodes.paragraph("", "", mark)]
        return [Explorer("", name=name, fallback=fallback)]


def _visit_html(self: Any, node: nodes.Element) -> None:
    name = node["name"]
    root = "../" * self.builder.current_docname.count("/")
    self.body.append(
        f'<div class="infero-explorer" id="explorer-{name}" data-explorer="{name}">\n'
        f'<div class="infero-explorer-stage" hidden></div>\n'
        f'<details class="infero-explorer-table"><summary>The same as a table</summary>\n'
        f"{node['fallback']}\n</details>\n"
        f"<noscript><p>This chart needs JavaScript; the table above holds its main settings."
        f"</p></noscript>\n"
        f'<script type="module" src="{root}_static/explorers/{name}.js"></script>\n</div>\n'
    )
    raise nodes.SkipNode


def publish(folder: Path) -> None:
    """Write every explorer's module, and its data from infero, into the site."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(EXPLORERS.glob("*.js")):
        shutil.copyfile(path, folder / path.name)
    for path in sorted(EXPLORERS.glob("*.py")):
        data = program(path.stem).data()
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        (folder / f"{path.stem}.json").write_text(text, encoding="utf-8")


def _skip(self: Any, node: nodes.Element) -> None:
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_node(Explorer, html=(_visit_html, None), latex=(_skip, None), text=(_skip, None))
    app.add_directive("explorer", ExplorerDirective)
