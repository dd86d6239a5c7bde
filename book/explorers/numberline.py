"""Number lines of eight- and four-bit formats under an outlier that the reader chooses.

The page makes the grids itself but for NF4's levels, which come from here; it rounds a sample of
weights to each and shows where they land. tests/book/test_explorer_numberline.py compares its
errors with infero's. Chapter 4.
"""

from __future__ import annotations

import html
import math
from typing import Any

import torch

from infero.quant import affine, blocks, floats

COUNT = 60
OUTLIERS = (None, 10.0, 30.0, 100.0, 300.0)  # of the table, in standard deviations
NAMES = {"int8": "int8", "e4m3": "FP8 E4M3", "e5m2": "FP8 E5M2", "int4": "int4", "nf4": "NF4"}


def sample() -> list[float]:
    """Weights drawn from a normal distribution of standard deviation 1, rounded to two digits."""
    drawn = torch.randn(COUNT, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return [round(w, 2) for w in (drawn / drawn.std()).tolist()]


def rounded(kind: str, x: torch.Tensor) -> torch.Tensor:
    """x [n] in a format that is scaled so that the largest magnitude fits, by infero."""
    largest = x.abs().max()
    if kind in ("int8", "int4"):
        return affine.fake_quantize(x, int(kind[3:]))
    if kind == "nf4":
        return blocks.nf4(x, block=len(x))
    top, to, back = ((448.0, floats.to_e4m3, floats.from_e4m3) if kind == "e4m3" else
                     (57344.0, floats.to_e5m2, floats.from_e5m2))
    return back(to(x / largest * top)) * largest / top


def errors(numbers: list[float], outlier: float | None) -> dict[str, tuple[float, int]]:
    """By format: root mean square error of the weights alone, and how many of them become 0."""
    x = torch.tensor([*numbers, *([] if outlier is None else [outlier])])
    found = {}
    for kind in NAMES:
        back = rounded(kind, x)[: len(numbers)]
        lost = (back == 0) & (x[: len(numbers)] != 0)
        found[kind] = (float((back - x[: len(numbers)]).square().mean().sqrt()), int(lost.sum()))
    return found


def data() -> dict[str, Any]:
    """The sample, the names of the formats and NF4's levels."""
    return {"sample": sample(), "names": NAMES, "nf4": list(blocks.nf4_levels())}


def fallback() -> str:
    """The error of every format for some outliers, as an HTML table."""
    rows = []
    for outlier in OUTLIERS:
        found = errors(sample(), outlier)
        cells = "".join(f"<td>{_percent(found[kind][0])} ({found[kind][1]})</td>" for kind in NAMES)
        name = "none" if outlier is None else f"{outlier:g} σ"
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in NAMES.values())
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        f"<caption>Root mean square error of {COUNT} normally distributed weights beside an "
        "outlier, in per cent of their standard deviation σ, and in brackets how many of them "
        f'become 0.</caption><thead><tr><th scope="col">outlier</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _percent(error: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(max(100 * error, 1e-9))))
    return f"{100 * error:.{min(digits, 3)}f} %"
