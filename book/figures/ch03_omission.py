"""Latencies around one stall: counted from when a request was due, and from when it was sent."""

from __future__ import annotations

from typing import Any

from infero import bench
from infero.bench import VirtualClock

STALL_S, SERVICE_S = 2.0, 0.010


def latencies(from_due: bool) -> tuple[list[float], list[float]]:
    """Due times and latencies of 50 requests a second over ten seconds with one stall."""
    clock, due = VirtualClock(), bench.constant_arrivals(50.0, 500)
    sent = []

    def send(i: int) -> None:
        sent.append(clock.now_s())
        clock.spend(STALL_S if i == 150 else SERVICE_S)

    honest = bench.open_loop(send, due, clock)
    blind = [STALL_S if i == 150 else SERVICE_S for i in range(len(due))]
    return due, honest if from_due else blind


def draw(theme: Any) -> Any:
    fig, ax = theme.figure(7.2, 2.8)
    for from_due, color, mark, name in (
            (True, theme.blue, ".", "counted from when it was due"),
            (False, theme.vermilion, "x", "counted from when it was sent")):
        due, found = latencies(from_due)
        ax.semilogy(due, [1e3 * t for t in found], mark, markersize=3.5, color=color,
                    label=f"{name}: p99 = {1e3 * bench.percentile(found, 99):,.0f} ms")
    ax.set(xlabel="moment the request was due (s)", ylabel="latency (ms)", ylim=(5, 9000),
           title="A server that needs 10 ms stalls once for 2 s; 50 requests a second")
    ax.legend(loc="upper right")
    return fig
