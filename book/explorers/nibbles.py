"""How a 32-bit word of eight 4-bit weights becomes floats: the packing order is the reader's.

The page works out everything itself; tests/book/test_explorer_nibbles.py compares it with
`infero.kernels.steps.matmul`. Here are the example, the orders to choose from, and a table of the
steps for those who cannot run it. Chapter 15.
"""

from __future__ import annotations

from typing import Any

VALUES = [3, 12, 0, 7, 15, 9, 1, 6]
X = [1.0, -2.0, 0.5, 3.0, -1.0, 1.5, 2.0, -0.5]
ORDERS = {
    "interleaved": ("0, 2, 4, 6, 1, 3, 5, 7 (the kernel's)", [0, 2, 4, 6, 1, 3, 5, 7]),
    "natural": ("0, 1, 2, 3, 4, 5, 6, 7 (the obvious one)", [0, 1, 2, 3, 4, 5, 6, 7]),
    "reversed": ("7, 6, 5, 4, 3, 2, 1, 0 (first weight on top)", [7, 6, 5, 4, 3, 2, 1, 0]),
    "swapped": ("1, 3, 5, 7, 0, 2, 4, 6 (halves exchanged)", [1, 3, 5, 7, 0, 2, 4, 6]),
}


def data() -> dict[str, Any]:
    """The example and the orders."""
    return {"values": VALUES, "x": X,
            "orders": [[key, words, order] for key, (words, order) in ORDERS.items()]}


def word_of(values: list[int], order: list[int]) -> int:
    """The word whose nibble p holds values[order[p]]."""
    return sum(values[order[p]] << 4 * p for p in range(8))


def steps(word: int) -> list[dict[str, Any]]:
    """The four shifts: what remains, what the or makes of it, and the two numbers."""
    found = []
    for k in range(4):
        masked = word >> 4 * k & 0x000F000F
        found.append({"masked": masked, "bits": masked | 0x64006400,
                      "low": masked & 0xFFFF, "high": masked >> 16})
    return found


def fallback() -> str:
    """The four shifts of the kernel's own order as an HTML table."""
    rows = []
    total = 0.0
    for k, step in enumerate(steps(word_of(VALUES, ORDERS["interleaved"][1]))):
        total += step["low"] * X[2 * k] + step["high"] * X[2 * k + 1]
        cells = (f"{step['masked']:08X}", f"{step['bits']:08X}",
                 f"{1024 + step['low']}, {1024 + step['high']}",
                 f"{step['low']} × {X[2 * k]:g} + {step['high']} × {X[2 * k + 1]:g}",
                 f"{total:g}")
        rows.append(f'<tr><th scope="row">{4 * k}</th>'
                    + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ("shift", "& 000F000F", "| 64006400", "as float16, lower half first",
             "less 1024, times x", "sum so far")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        "<caption>The word 697C1F03 holds the weights 3, 12, 0, 7, 15, 9, 1, 6, packed in the "
        "order 0, 2, 4, 6, 1, 3, 5, 7. Packed in any other order, the same steps would give each x "
        f"another weight.</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
