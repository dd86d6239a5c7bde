"""Data and table of the FlashAttention explorer: small random queries, keys and values of one head.

The explorer walks over the tiles of one row of queries and keeps maximum, sum and accumulator as
`infero.kernels.steps.attention.blockwise` does; the bytes are those of
`infero.kernels.steps.attention_io`. Both are compared with it in a browser.
"""

from __future__ import annotations

from typing import Any

LONGEST, DIM, SEED = 64, 16, 14
LENGTHS, TILES = (16, 32, 48, 64), (4, 8, 16)
WIDTH = 2  # bytes a number


def data() -> dict[str, Any]:
    """`{"dim", "width", "scale", "lengths", "tiles", "q", "k", "v"}`, numbers to three digits."""
    import torch

    g = torch.Generator().manual_seed(SEED)
    q, k, v = (torch.randn(LONGEST, DIM, generator=g) for _ in range(3))
    numbers = {name: [[round(x, 3) for x in row] for row in (1.2 * t).tolist()]
               for name, t in (("q", q), ("k", k), ("v", v))}
    return {"dim": DIM, "width": WIDTH, "scale": DIM**-0.5, "lengths": list(LENGTHS),
            "tiles": list(TILES), **numbers}


def fallback() -> str:
    """Tiles and bytes for some lengths and tile sizes, as an HTML table."""
    from infero.kernels.steps import attention_io

    rows = []
    for n in LENGTHS:
        naive = attention_io.naive_traffic(n, n, DIM, WIDTH).total
        for size in TILES:
            done = len(attention_io.tiles(n, n, size, size))
            moved = attention_io.flash_traffic(n, n, DIM, size, size, WIDTH).total
            rows.append(f'<tr><th scope="row">{n} tokens, tiles of {size} by {size}</th>'
                        f"<td>{done} of {-(-n // size) ** 2}</td><td>{moved:,} B</td>"
                        f"<td>{naive:,} B</td></tr>")
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        f"<caption>One causal head of dimension {DIM}, two bytes a number.</caption>"
        '<thead><tr><th scope="col">setting</th><th scope="col">tiles computed</th>'
        '<th scope="col">moved in tiles</th><th scope="col">moved with the scores</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
