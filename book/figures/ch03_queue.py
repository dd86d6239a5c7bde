"""One server with a constant service time under an open and under a closed loop."""

from __future__ import annotations

import statistics
from typing import Any

from infero import bench
from infero.bench import SerialQueue, VirtualClock


def draw(theme: Any) -> Any:
    fig, (left, right) = theme.figure(7.2, 3.2, columns=2)
    fine = [i / 200 for i in range(1, 194)]
    for variation, style, name in ((0.0, "-", "constant service, theory"),
                                   (1.0, "--", "exponential service, theory")):
        left.plot(fine, [1 + bench.mean_wait_s(x, 1.0, variation) for x in fine], style,
                  color=theme.muted, label=name)
    loads = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95]
    mean, tail = [], []
    for load in loads:
        clock = VirtualClock()
        due = bench.poisson_arrivals(load, 30_000, seed=11)
        found = bench.open_loop(lambda i, c=clock: c.spend(1.0), due, clock)
        mean.append(statistics.mean(found))
        tail.append(bench.percentile(found, 99))
    left.plot(loads, mean, "o", color=theme.blue, label="constant, mean, measured")
    left.plot(loads, tail, "^", color=theme.vermilion, label="constant, p99, measured")
    left.set(xlabel="load ρ = arrival rate × service time", ylabel="latency / service time",
             ylim=(0, 34), title="Open loop")
    left.legend(loc="upper left")

    clients = list(range(1, 17))
    for think, color, mark in ((0.0, theme.blue, "o"), (5.0, theme.green, "s")):
        means = []
        for n in clients:
            found = bench.closed_loop(SerialQueue(lambda: 1.0), n, 3000, think)
            means.append(statistics.mean(found[500:]))
        right.plot(clients, means, mark, color=color, markersize=4.5,
                   label=f"thinking {think:g} × service")
        right.plot(clients, [max(1.0, n - think) for n in clients], color=theme.muted, linewidth=1)
    right.set(xlabel="clients N", ylabel="latency / service time", ylim=(0, 17.5),
              title="Closed loop")
    right.set_xticks([1, 4, 8, 12, 16])
    right.legend(loc="upper left")
    return fig
