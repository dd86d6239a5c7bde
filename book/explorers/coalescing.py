"""Data and table of the coalescing explorer, counted by `infero.kernels.steps.coalescing`."""

from __future__ import annotations

import html
from typing import Any

from infero.kernels.steps import coalescing

#: name, index expression of the thread t, bytes of an element, what it is
PRESETS = (
    ("Neighbours", "t", 4, "thread t reads x[t]"),
    ("Stride 2", "2 * t", 4, "every second number"),
    ("Stride 8", "8 * t", 4, "every eighth number: a sector each"),
    ("Stride 32", "32 * t", 4, "every 32nd number: a line each"),
    ("Shifted by 3", "t + 3", 4, "an unaligned start"),
    ("A column", "1000 * t", 4, "down a column of a matrix 1,000 wide"),
    ("Array of structs", "6 * t + 1", 4, "field 1 of structs of 6 numbers"),
    ("Struct of arrays", "1024 + t", 4, "the same field, stored by fields"),
    ("bf16 neighbours", "t", 2, "2-byte numbers"),
    ("16 bytes a thread", "t", 16, "what a wide load asks for"),
    ("Tile 8 wide", "100 * (t // 8) + t % 8", 4, "8 columns of 4 rows"),
    ("Broadcast", "7", 4, "every thread reads the same number"),
    ("Shared: stride 33", "33 * t", 4, "a column of a padded tile"),
)


def indexes(expression: str) -> list[int]:
    """The expression for t = 0 … 31, in Python; only for the presets above."""
    return [eval(expression, {"__builtins__": {}}, {"t": t}) for t in range(coalescing.WARP)]


def data() -> dict[str, Any]:
    """`{"sector", "line", "banks", "bank", "presets": [{name, expression, bytes, words}]}`."""
    presets = [{"name": n, "expression": e, "bytes": b, "words": w} for n, e, b, w in PRESETS]
    return {"sector": coalescing.SECTOR_BYTES, "line": coalescing.LINE_BYTES,
            "banks": coalescing.BANKS, "bank": coalescing.BANK_BYTES, "presets": presets}


def fallback() -> str:
    """The presets as an HTML table."""
    rows = []
    for name, expression, size, words in PRESETS:
        found = indexes(expression)
        rounds = str(coalescing.bank_conflicts(found)) if size == 4 else "–"
        rows.append(
            f'<tr><th scope="row">{html.escape(name)}</th><td><code>x[{html.escape(expression)}]'
            f"</code></td><td>{html.escape(words)}</td><td>{size}</td>"
            f"<td>{coalescing.sectors(found, size)}</td><td>{coalescing.lines(found, size)}</td>"
            f"<td>{100 * coalescing.efficiency(found, size):.3g} %</td><td>{rounds}</td></tr>")
    heads = ("pattern", "index of thread t", "what it is", "bytes", "sectors of 32 bytes",
             "lines of 128 bytes", "share used", "rounds in shared memory")
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    return ('<div tabindex="0" role="group" aria-label="Table"><table class="table">'
            "<caption>What one load of a warp of 32 threads costs.</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>")
