"""Host and device as two lanes: when a kernel ends that the host had to launch first.

Chapter 16 explains it; `device_ends` and `overlapped` are exercises of Lab 16. A launch is work of
the host, a kernel is work of the device, and the two run at the same time: what a step takes is
decided by whichever lane is behind. Times are seconds and the model is exact arithmetic, so the
book's figures, the explorer and `benchmarks/launches.py` all draw from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infero.errors import ParameterError


def device_ends(kernels_s: Sequence[float], launch_s: float) -> list[float]:
    """When each kernel ends, if the host begins to launch them at time 0.

    The host needs launch_s for each launch, one after another, and waits for nothing. A kernel
    begins once its own launch is done and the kernel before it has ended, whichever is later.
    kernels_s: seconds that each kernel runs, in the order of the launches. No kernel, no end.
    """
    ends: list[float] = []
    for i, kernel_s in enumerate(kernels_s):
        before = ends[-1] if ends else 0.0
        ends.append(max((i + 1) * launch_s, before) + kernel_s)
    return ends


def overlapped(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    """When the device ends each step, if the host plans one step ahead of it.

    plan_s, run_s: seconds that the host plans and the device runs each step. The host plans one
    step after another. It begins to plan step n when it has planned step n-1 and the device has
    ended step n-2: one step may be in flight, not two. The device begins step n when it is planned
    and step n-1 has ended. Everything begins at time 0.
    """
    planned, ends = 0.0, list[float]()
    for n, (plan, run) in enumerate(zip(plan_s, run_s, strict=True)):
        planned = max(planned, ends[n - 2] if n > 1 else 0.0) + plan
        ends.append(max(planned, ends[-1] if ends else 0.0) + run)
    return ends


def in_turn(plan_s: Sequence[float], run_s: Sequence[float]) -> list[float]:
    """The same steps without overlap: plan, run, read the tokens, and only then plan again."""
    ends, now = list[float](), 0.0
    for plan, run in zip(plan_s, run_s, strict=True):
        now += plan + run
        ends.append(now)
    return ends


def replayed_ends(kernels_s: Sequence[float], launch_s: float, gap_s: float) -> list[float]:
    """When each kernel of a captured graph ends: one launch, and a gap before each kernel."""
    ends, now = list[float](), launch_s
    for kernel_s in kernels_s:
        now += gap_s + kernel_s
        ends.append(now)
    return ends


# ---------------------------------------------------------------- the arithmetic of a decode step


@dataclass(frozen=True)
class Costs:
    """What launching costs on one machine, in seconds."""

    launch_s: float  # of the host, for one kernel
    graph_s: float  # of the host, for a whole graph
    gap_s: float  # of the device, between two kernels of a graph


@dataclass(frozen=True)
class Prediction:
    """A decode step of equal kernels, launched one by one and as a graph. Times in seconds."""

    launches: int
    work_s: float  # the device alone, without gaps
    eager_s: float
    graph_s: float

    @property
    def launch_bound(self) -> bool:
        """Whether the host is the slower lane when it launches every kernel itself."""
        return self.eager_s > 1.05 * self.work_s


def predict(launches: int, work_s: float, costs: Costs) -> Prediction:
    """A step of `launches` kernels that share `work_s` seconds of device work evenly."""
    if launches < 1 or work_s < 0:
        raise ParameterError(f"launches is {launches} and work_s {work_s}; a step has at least one "
                             "kernel and no negative work.")
    kernels = [work_s / launches] * launches
    return Prediction(launches, work_s, device_ends(kernels, costs.launch_s)[-1],
                      replayed_ends(kernels, costs.graph_s, costs.gap_s)[-1])


def most_launches(work_s: float, launch_s: float) -> int:
    """How many launches a step may have before the host becomes the slower lane."""
    return int(work_s / launch_s)


def step_gain(plan_s: float, run_s: float, steps: int = 64) -> float:
    """Time of `steps` equal steps in turn over the same steps with the host one step ahead."""
    plans, runs = [plan_s] * steps, [run_s] * steps
    return in_turn(plans, runs)[-1] / overlapped(plans, runs)[-1]
