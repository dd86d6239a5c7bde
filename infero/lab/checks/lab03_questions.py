"""Lab 3's questions about the recorded traces: each answer is computed from the trace itself.

`ask(key, mine)` says whether a number is right, without saying what is right; in solutions mode it
gives the answer. The notebook holds no answer, and a new recording changes them all at once.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from infero import trace
from infero.lab import mode
from infero.lab.render import Card


@functools.cache
def profile(name: str) -> trace.Profile:
    """A recorded trace, read once."""
    return trace.profile(trace.recorded(name))


def steps(name: str) -> int:
    """How many steps a recorded trace holds."""
    return sum(mark.name.startswith("step ") for mark in profile(name).marks)


@dataclass(frozen=True)
class Question:
    """One question: its answer, in what unit, how close is close, and where to look."""

    compute: Callable[[], float]
    unit: str
    tolerance: float
    hint: str


def _kernels(name: str) -> float:
    return len(profile(name).kernels) / steps(name)


def _launches(name: str) -> float:
    return sum("Launch" in call.name for call in profile(name).calls) / steps(name)


def _delay_us(name: str) -> float:
    return 1e6 * statistics.median(trace.launch_delays_s(profile(name)))


def is_matmul(kernel: str) -> bool:
    """Is this the name of a matrix product of cuBLAS or CUTLASS?"""
    return any(word in kernel for word in ("nvjet", "cutlass", "gemm", "xmma"))


def _share(name: str, chosen: Callable[[str], bool]) -> float:
    rows = trace.kernel_table(profile(name).kernels)
    return sum(r.total_s for r in rows if chosen(r.name)) / sum(r.total_s for r in rows)


def _waits(name: str) -> float:
    one = profile(name)
    marks = [m for m in one.marks if m.name.startswith("step ")]
    inside = [w for w in trace.waits(one) if any(m.start_s <= w.start_s < m.end_s for m in marks)]
    return len(inside) / steps(name)


QUESTIONS: dict[str, Question] = {
    "kernels": Question(
        lambda: _kernels("decode_eager"), "kernels", 0.02,
        "len(eager.kernels) counts those of all steps in the trace."),
    "busy": Question(
        lambda: 100 * trace.busy_share(profile("decode_eager").device), "%", 0.05,
        "trace.busy_share(eager.device), as a percentage."),
    "graph_launches": Question(
        lambda: _launches("decode_graph"), "launch calls", 0.0,
        "Count the names in graph.calls: collections.Counter(call.name for call in graph.calls)."),
    "graph_busy": Question(
        lambda: 100 * trace.busy_share(profile("decode_graph").device), "%", 0.05,
        "The same as for the eager trace."),
    "delay_eager": Question(
        lambda: _delay_us("decode_eager"), "µs", 0.1,
        "The median of trace.launch_delays_s(eager), times 1e6."),
    "delay_graph": Question(
        lambda: _delay_us("decode_graph"), "µs", 0.1,
        "The median of trace.launch_delays_s(graph), times 1e6."),
    "prefill_busy": Question(
        lambda: 100 * trace.busy_share(profile("prefill").device), "%", 0.05,
        "trace.busy_share(prefill.device), as a percentage."),
    "matmul_share": Question(
        lambda: 100 * _share("prefill", is_matmul), "%", 0.1,
        "Add up row.total_s of the rows of trace.kernel_table(prefill.kernels) for which "
        "questions.is_matmul(row.name) holds, and divide by the sum over all rows."),
    "waits": Question(
        lambda: _waits("decode_sync"), "waits", 0.0,
        "trace.waits(sync) lists the calls in which the host stood still. The last one or two come "
        "after the steps; how many fall into one step?"),
}


def ask(key: str, mine: float | None) -> bool | None:
    """Say whether `mine` answers question `key`; None asks for a number."""
    question = QUESTIONS[key]
    truth = question.compute()
    shown = f"{truth:,.3g}" if abs(truth) < 1000 else f"{truth:,.0f}"
    if mode.current() == "solutions":
        Card("info", "Answer", [f"{shown} {question.unit}. {question.hint}"]).show()
        return None
    if mine is None:
        Card("warning", "no answer yet", [
            f"Put a number ({question.unit}) into the line above and run this cell again."]).show()
        return None
    off = float(mine) - truth
    if abs(off) <= question.tolerance * abs(truth) + 1e-9:
        Card("passed", "the number agrees with the trace", [f"{shown} {question.unit}."]).show()
        return True
    way = "too large" if off > 0 else "too small"
    Card("failed", "", [f"{mine:,.4g} {question.unit} is {way}.", question.hint]).show()
    return False
