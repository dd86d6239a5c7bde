"""Data and table of the lanes explorer: host and device over a few decode steps.

`step_s` puts `infero.lanes` together for a whole step; the explorer's test compares its timeline
with this and with the functions of the engine.
"""

from __future__ import annotations

from typing import Any

from infero import lanes

GRAPH_S, GAP_S = 4e-6, 1.3e-6  # an example, and the seam that chapter 16 cites for an H100
PRESETS: tuple[tuple[str, dict[str, int]], ...] = (
    ("Launch-bound", {"kernels": 24, "kernel": 20, "launch": 70, "plan": 100, "graph": 0,
                      "ahead": 0}),
    ("Long kernels", {"kernels": 24, "kernel": 150, "launch": 70, "plan": 100, "graph": 0,
                      "ahead": 0}),
    ("A graph", {"kernels": 24, "kernel": 20, "launch": 70, "plan": 100, "graph": 1, "ahead": 0}),
    ("And one step ahead", {"kernels": 24, "kernel": 20, "launch": 70, "plan": 60, "graph": 1,
                            "ahead": 1}),
)


def step_s(kernels: int, kernel_s: float, launch_s: float, plan_s: float, graph: bool, ahead: bool
           ) -> float:
    """Seconds of one step among many equal ones."""
    if graph:
        host, device = plan_s + GRAPH_S, kernels * (GAP_S + kernel_s)
        return max(host, device) if ahead else host + device
    alone = lanes.device_ends([kernel_s] * kernels, launch_s)[-1]
    if not ahead:
        return plan_s + alone
    return max(plan_s + kernels * launch_s, kernels * kernel_s)


def data() -> dict[str, Any]:
    """The presets."""
    return {"presets": [{"name": name, "state": state} for name, state in PRESETS]}


def fallback() -> str:
    """Step times of the presets in all four ways, as an HTML table."""
    rows = []
    for name, state in PRESETS[:2]:
        numbers = (state["kernels"], state["kernel"] * 1e-7, state["launch"] * 1e-7,
                   state["plan"] * 1e-6)
        cells = "".join(f"<td>{1e6 * step_s(*numbers, graph, ahead):,.0f} µs</td>"
                        for graph in (False, True) for ahead in (False, True))
        words = (f"{name}: {numbers[0]} kernels of {1e6 * numbers[1]:g} µs, launches of "
                 f"{1e6 * numbers[2]:g} µs, plans of {1e6 * numbers[3]:.0f} µs")
        rows.append(f'<tr><th scope="row">{words}</th>{cells}</tr>')
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        "<caption>Time of a decode step in the steady state.</caption>"
        '<thead><tr><th scope="col">a step</th><th scope="col">one by one, in turn</th>'
        '<th scope="col">one by one, ahead</th><th scope="col">graph, in turn</th>'
        '<th scope="col">graph, ahead</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
