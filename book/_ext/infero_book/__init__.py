"""The book's Sphinx extension: what turns chapters, labs and results into the website.

`{result}` and `{result-table}` quote measured values, `{piece}` quotes the engine's code, `{plot}`
draws a figure for the light and the dark page, `{explorer}` embeds an interactive chart. The labs
run in solution mode at build, behind a cache whose name hashes all that their outputs depend on.
CONTRIBUTING.md shows how each is used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from infero_book import (  # noqa: E402
    devices,
    execution,
    explorers,
    labs,
    landing,
    numbering,
    pages,
    pieces,
    plots,
    problems,
    results,
)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("infero_draft", False, "env")
    parts = (problems, execution, results, devices, pieces, plots, explorers, labs, landing,
             numbering, pages)
    for part in parts:
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
