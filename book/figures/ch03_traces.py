"""One millisecond of each recorded trace: driver calls of the host, and what the GPU did."""

from __future__ import annotations

from typing import Any

from infero import trace
from infero.trace import Interval

LENGTH_S = 0.001
NAMES = {"decode_eager": "decode, launched one by one",
         "decode_graph": "decode, one CUDA graph a step",
         "prefill": "prefill of 2,048 tokens", "decode_sync": "decode with the hidden wait"}


def bars(things: list[Interval], start_s: float) -> list[tuple[float, float]]:
    """The stretches inside the window in microseconds; gaps under 1 µs are not drawn."""
    end_s = start_s + LENGTH_S
    inside = [t for t in things if t.end_s > start_s and t.start_s < end_s]
    joined: list[list[float]] = []
    for low, high in trace.merged(inside):
        low, high = max(low, start_s), min(high, end_s)
        if joined and low - joined[-1][1] < 1e-6:
            joined[-1][1] = high
        else:
            joined.append([low, high])
    return [(1e6 * (low - start_s), 1e6 * (high - low)) for low, high in joined]


def draw(theme: Any) -> Any:
    fig, axes = theme.figure(7.2, 4.6, rows=4, sharex=True)
    for ax, (name, title) in zip(axes, NAMES.items(), strict=True):
        one = trace.profile(trace.recorded(name))
        start_s = one.kernels[len(one.kernels) // 3].start_s
        waits = trace.waits(one)
        launches = [c for c in one.calls if c not in waits]
        high, low = (1.08, 0.84), (0.08, 0.84)
        ax.broken_barh(bars(launches, start_s), high, facecolors=theme.vermilion, linewidth=0)
        ax.broken_barh(bars(waits, start_s), high, facecolors=theme.purple, linewidth=0,
                       hatch="////", edgecolor=theme.page)
        ax.broken_barh(bars(one.device, start_s), low, facecolors=theme.blue, linewidth=0)
        ax.set(yticks=[0.5, 1.5], yticklabels=["GPU", "host"], ylim=(0, 2),
               xlim=(0, 1e6 * LENGTH_S), title=title)
        ax.grid(axis="y", visible=False)
    axes[-1].set_xlabel("µs")
    return fig
