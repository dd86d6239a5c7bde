"""Data and table of the batching explorer: examples, and what three policies make of them."""

from __future__ import annotations

import html
from typing import Any

PRESETS: list[dict[str, Any]] = [
    {"name": "Chapter's example", "lengths": [4, 9, 2, 7, 3, 8, 5, 2], "arrivals": [0] * 8,
     "slots": 4, "window": 4},
    {"name": "One long answer", "lengths": [30, 3, 4, 3, 5, 4, 3, 4, 3, 5, 4, 3],
     "arrivals": [0] * 12, "slots": 4, "window": 4},
    {"name": "Equal lengths", "lengths": [6] * 12, "arrivals": [0] * 12, "slots": 4, "window": 4},
    {"name": "Arriving one by one", "lengths": [9, 5, 7, 3, 8, 4, 6, 5, 9, 4],
     "arrivals": [0, 2, 3, 7, 9, 12, 13, 18, 20, 21], "slots": 3, "window": 4},
]


def data() -> dict[str, Any]:
    """`{"presets": [{"name", "lengths", "arrivals", "slots", "window"}]}`."""
    return {"presets": PRESETS}


def fallback() -> str:
    """Every preset under every policy, as an HTML table, from the engine's own module."""
    from infero import batching

    lines = []
    for preset in PRESETS:
        arguments = (preset["lengths"], preset["slots"], preset["arrivals"], preset["window"])
        cells = []
        for policy in batching.POLICIES:
            trace = batching.simulate(policy, *arguments)
            answer = sum(s.released - s.arrival for s in trace.services) / len(trace.services)
            cells.append(f"<td>{trace.makespan} passes, {trace.utilisation:.0%} used, "
                         f"answer after {answer:.1f}</td>")
        shown = ", ".join(map(str, preset["lengths"]))
        lines.append(f'<tr><th scope="row">{html.escape(preset["name"])}: {shown} in '
                     f'{preset["slots"]} slots</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{policy}</th>' for policy in batching.POLICIES)
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table"><caption>Passes '
        "until all is done, share of the slots that worked, and mean passes from arrival to answer "
        f'(window of dynamic batching: 4).</caption><thead><tr><th scope="col">lengths</th>{head}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
