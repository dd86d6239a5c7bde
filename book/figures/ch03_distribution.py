"""A thousand timings of one product: as the waiting host sees it, and between two events."""

from __future__ import annotations

from typing import Any

from infero import bench, results


def draw(theme: Any) -> Any:
    fig, (left, right) = theme.figure(7.2, 2.9, columns=2, gridspec_kw={"width_ratios": [3, 2]})
    table = results.table("gpu/pitfalls/distribution")
    for name, color, label in (("host", theme.blue, "host clock, waiting"),
                               ("device", theme.green, "events on the device")):
        micro = [1e6 * t for t in table.column(name)]
        left.hist(micro, bins=[44 + 0.4 * i for i in range(75)], color=color, alpha=0.75,
                  label=label)
        median = bench.percentile(micro, 50)
        left.axvline(median, color=color, linewidth=1.2, linestyle="--")
    left.set(xlabel="µs, of 1,000 calls each", ylabel="calls")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    first = results.table("gpu/pitfalls/first_calls").column("time")
    right.semilogy(range(1, 21), [1e3 * t for t in first[:20]], "o-", color=theme.vermilion,
                   markersize=4)
    right.set(xlabel="call", ylabel="ms", title="The first calls of a process",
              xticks=[1, 5, 10, 15, 20])
    return fig
