"""Draws the README's picture, book/_static/infero-map.svg: the landing page's map, standing alone.

    .venv/bin/python tools/readme_map.py

Run it when a chapter is added; tests/test_tools.py says when it is stale. Solid boxes are chapters
that _toc.yml lists.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "book" / "_static" / "infero-map.svg"
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1c232b; }
.map-band { fill: #f1f3f6; } .map-band-name { fill: #4d5966; font-size: 11.5px; }
.map-box { fill: #fff; stroke: #b6bfc9; stroke-width: 1.2; stroke-dasharray: 4 3; }
.map-number { fill: #4d5966; font-size: 12px; }
.done .map-box { fill: #e9f3fb; stroke: #0b63a5; stroke-width: 2; stroke-dasharray: none; }
.done .map-number { fill: #0b63a5; font-weight: 700; } .done text { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6eaef; } .map-band { fill: #1b222b; }
  .map-band-name, .map-number { fill: #a9b4c0; }
  .map-box { fill: #12171d; stroke: #4b5764; }
  .done .map-box { fill: #12283a; stroke: #6bbcf2; } .done .map-number { fill: #6bbcf2; }
}
"""


def drawing() -> str:
    """The picture's text."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    from infero_book import landing

    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    pages = set(re.findall(r"^\s*- file: (\S+)", toc, flags=re.M))
    whole = landing.engine_map(lambda page: "x" if page in pages else "")
    found = re.search(r'<svg class="map-wide".*?</svg>', whole, flags=re.S)
    assert found, "the landing page's map has no wide drawing"
    svg = re.sub(r"<a [^>]*>", '<g class="done">', found.group(0)).replace("</a>", "</g>")
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    svg = svg.replace('role="group"', 'role="img"', 1)
    at = svg.index(">") + 1
    return f"{svg[:at]}<style>{STYLE}</style>{svg[at:]}\n".replace("<rect", "\n<rect")


if __name__ == "__main__":
    TARGET.write_text(drawing(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
