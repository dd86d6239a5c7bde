"""One matrix product 1,500 times from a rested card; and what power and clock do meanwhile."""

from __future__ import annotations

from typing import Any

from infero import bench, results


def draw(theme: Any) -> Any:
    fig, (left, right) = theme.figure(7.2, 3.1, columns=2)
    times = results.table("gpu/pitfalls/settling").column("time")
    moment, at = 0.0, []
    for t in times:
        at.append(moment)
        moment += t
    left.plot(at, [1e3 * t for t in times], ".", markersize=2, color=theme.blue)
    window = 50
    middle = [bench.percentile(times[i : i + window], 50) for i in range(0, len(times), window)]
    left.plot(at[window // 2 :: window][: len(middle)], [1e3 * m for m in middle],
              color=theme.vermilion, label="median of 50")
    left.set(xlabel="seconds since the first call", ylabel="ms a call",
             title="8192³ product of random numbers")
    left.set_ylim(1.3, bench.percentile([1e3 * t for t in times], 99.5) + 0.1)
    left.legend(loc="lower right")

    rows = results.table("gpu/power/timeline").records()
    shown = ("idle", "copy", "matmul_zeros", "matmul_normal")
    rows = [row for row in rows if row["phase"] in shown]
    seconds = [row["time"] for row in rows]
    right.plot(seconds, [row["power"] for row in rows], color=theme.blue, label="power (W)")
    right.plot(seconds, [row["clock"] / 1e6 / 2 for row in rows], color=theme.vermilion,
               linestyle="--", label="clock (MHz, halved)")
    names = {"idle": "idle", "copy": "copy", "matmul_zeros": "× zeros", "matmul_normal": "× random"}
    for phase in shown:
        mine = [row["time"] for row in rows if row["phase"] == phase]
        right.axvline(mine[0], color=theme.muted, linewidth=0.7)
        right.text((mine[0] + mine[-1]) / 2, 1085, names[phase], ha="center", va="bottom",
                   fontsize=9, color=theme.ink)
    right.set(xlabel="seconds", ylim=(0, 1180), title="Power and clock")
    right.legend(loc="lower right")
    return fig
