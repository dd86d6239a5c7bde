"""How far a measured percentile can be from the true one, by the number of samples."""

from __future__ import annotations

import math
import random
from typing import Any

from infero import bench


def draw(theme: Any) -> Any:
    fig, ax = theme.figure(7.2, 3.0)
    draw_ = random.Random(3)
    sizes = [30, 60, 100, 200, 400, 800, 1600, 3200, 6400]
    for q, color, mark in (
            (50, theme.blue, "o"), (90, theme.green, "s"), (99, theme.vermilion, "^")):
        truth = -math.log(1 - q / 100)
        low, high = [], []
        for n in sizes:
            found = [bench.percentile([draw_.expovariate(1) for _ in range(n)], q) / truth
                     for _ in range(max(150, 90_000 // n))]
            low.append(bench.percentile(found, 5))
            high.append(bench.percentile(found, 95))
        ax.plot(sizes, low, color=color, marker=mark, markersize=4)
        ax.plot(sizes, high, color=color, marker=mark, markersize=4, label=f"p{q}")
    ax.axhline(1, color=theme.muted, linewidth=0.8)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="requests measured", ylabel="measured / true", ylim=(0.45, 1.75),
           title="Where nine measurements in ten fall")
    ax.legend(ncols=3, loc="upper right")
    return fig
