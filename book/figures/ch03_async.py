"""Where the clock is read: a launch returns long before its work is done."""

from __future__ import annotations

from typing import Any


def draw(theme: Any) -> Any:
    fig, ax = theme.canvas(7.2, 2.75)
    left, unit = 0.95, 0.92
    for y, name in ((1.75, "host"), (0.85, "device")):
        ax.text(left - 0.12, y + 0.17, name, ha="right", va="center", color=theme.ink, fontsize=9.5)
        ax.plot([left, 7.05], [y - 0.06, y - 0.06], color=theme.grid, linewidth=0.8)
    launches = [0.0, 0.42, 0.84]
    for i, at in enumerate(launches):
        theme.box(ax, (left + at * unit, 1.72), 0.34, 0.36, f"L{i + 1}", color=theme.blue, size=8.5)
    theme.box(ax, (left + 1.3 * unit, 1.72), 4.12 * unit, 0.36, "waiting in synchronize()",
              color=theme.muted, size=8.5)
    starts = [0.3, 2.0, 3.7]
    for i, at in enumerate(starts):
        theme.box(ax, (left + at * unit, 0.82), 1.66 * unit, 0.36, f"kernel {i + 1}",
                  color=theme.green, size=9)
        theme.arrow(ax, (left + launches[i] * unit + 0.17, 1.72),
                    (left + at * unit + 0.1, 1.18), color=theme.blue)
    for at, words, color, where in ((0.0, "start", theme.ink, "center"),
                                    (1.27, "wrong stop:\nthe launches", theme.vermilion, "center"),
                                    (5.44, "right stop:\nthe work", theme.ink, "center")):
        x = left + at * unit
        low = 1.3 if color == theme.vermilion else 0.62  # do not strike the kernel's name through
        ax.plot([x, x], [low, 2.3], color=color, linewidth=1.2, linestyle=(0, (3, 2)))
        ax.text(x, 2.36, words, ha=where, va="bottom", color=color, fontsize=9)
    ax.annotate("", (7.05, 0.45), (left, 0.45),
                arrowprops={"arrowstyle": "-|>", "color": theme.muted, "linewidth": 1})
    ax.text(7.05, 0.22, "time", ha="right", va="center", color=theme.muted, fontsize=9)
    return fig
