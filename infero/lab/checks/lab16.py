"""What Lab 16 demands of its pieces on launches, overlap and buckets, and the mistakes it knows.

Times are compared with a simulation that carries out the host's and the device's work event by
event. `lab16_graphs.py` has the checks of fill and replay, which are named here too. Chapter 16
explains the pieces.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab16_graphs import fill, replay

__all__ = ["bucket_of", "device_ends", "fill", "overlapped", "replay"]

Times = list[float]
Known = dict[str, tuple[str, Callable[..., Times]]]


# ---------------------------------------------------------------- lists of times


def _numbers(got: Any, count: int) -> Times:
    """The candidate's list of times; a Mistake where it is something else."""
    if got is None:
        raise Mistake("The result is None: does your function end in `return`?", key="returns-none")
    if isinstance(got, (int, float)):
        raise Mistake("You return one number; return a list with the end of each of them, in "
                      "order.", key="wrong-type")
    try:
        found = [float(value) for value in got]
    except (TypeError, ValueError):
        raise Mistake(f"Return a list of seconds; this is {got!r}.", key="wrong-type") from None
    if len(found) != count:
        raise Mistake(f"There should be {count} ends, one for each; you return {len(found)}.",
                      key="wrong-length")
    return found


def _same(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12)
                                    for x, y in zip(a, b, strict=True))


def _judge(answers: list[tuple[tuple[Any, ...], Times, Times]], known: Known,
           names: Sequence[str], unit: str) -> None:
    """answers: (arguments, got, want). Name the mistake that explains every answer."""
    wrong = [one for one in answers if not _same(one[1], one[2])]
    if not wrong:
        return
    arguments, got, want = min(wrong, key=lambda one: len(one[2]))
    first = next(i for i, (g, w) in enumerate(zip(got, want, strict=True))
                 if not math.isclose(g, w, rel_tol=1e-9, abs_tol=1e-12))
    shown = "; ".join(f"{name} = {_brief(value)}" for name, value in zip(names, arguments,
                                                                         strict=True))
    details = [f"For {shown}, {unit} {first} ends at {want[first]:g}; you say {got[first]:g}."]
    for key, (words, formula) in known.items():
        if all(_same(g, formula(*a)) for a, g, _ in answers):
            raise Mistake(words, key=key, details=details)
    raise Mistake(details[0], key="wrong-values", details=[
        f"All ends should be {_brief(want)}; yours are {_brief(got)}."])


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "[" + ", ".join(f"{v:g}" for v in value) + "]"


# ---------------------------------------------------------------- 1: launches


def _launched(kernels: Sequence[float], launch: float) -> Times:
    """The right answer, by events: the host fills a queue, the device empties it."""
    ready = [launch * (i + 1) for i in range(len(kernels))]
    free, ends = 0.0, []
    for at, run in zip(ready, kernels, strict=True):
        begin = at if at > free else free
        free = begin + run
        ends.append(free)
    return ends


def _early(kernels: Sequence[float], launch: float) -> Times:
    end, ends = 0.0, []
    for i, run in enumerate(kernels):
        end = max(i * launch, end) + run
        ends.append(end)
    return ends


_LAUNCH: Known = {
    "synchronous": (
        "Your host waits for each kernel before it launches the next one. A launch only puts the "
        "kernel into a queue: the host goes on at once, and launch i is done at (i + 1) * "
        "launch_s.", lambda k, c: list(accumulate(c + run for run in k))),
    "one-launch-early": (
        "Your kernels begin one launch too early: the host has done its first launch only at "
        "launch_s, and kernel i can begin at (i + 1) * launch_s at the earliest.", _early),
    "no-queue": (
        "Each kernel begins as soon as it is launched, even while the one before it still runs. "
        "The device works through them in order: wait for the end before as well.",
        lambda k, c: [(i + 1) * c + run for i, run in enumerate(k)]),
    "launches-forgotten": (
        "You charge the host for the first launch and then let the device run on without it. A "
        "short kernel ends before the next one is launched, and the device waits.",
        lambda k, c: [c + t for t in accumulate(k)]),
    "no-launches": ("You add up the kernels and leave out what the launches cost.",
                    lambda k, c: list(accumulate(k))),
    "launched-first": (
        "Your device begins when everything is launched; it begins with the first kernel.",
        lambda k, c: [len(k) * c + t for t in accumulate(k)]),
    "begins": ("You return when each kernel begins; add the time it runs.",
               lambda k, c: [e - r for e, r in zip(_launched(k, c), k, strict=True)]),
    "durations": ("You return how long each kernel takes with its launch; times count from 0.",
                  lambda k, c: [max(c, r) for r in k]),
    "slower-lane-sum": (
        "You add the larger of launch and kernel for each kernel. A host that is ahead stays "
        "ahead: its lead over a long kernel pays for later launches.",
        lambda k, c: list(accumulate(max(c, r) for r in k))),
    "queue-after-launch": (
        "You let the launch begin when the kernel before has ended; the host launches while the "
        "device works.", lambda k, c: list(accumulate(c + r for r in k))),
}


def device_ends(c: Check) -> None:
    """Launch-bound, device-bound and mixed queues; equal and random kernels; none at all."""
    answers = []
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for count, longest, launch in ((7, 1.0, 4.0), (7, 9.0, 2.0), (12, 8.0, 4.0), (1, 3.0, 2.0),
                                       (9, 6.0, 3.0), (5, 4.0, 0.0)):
            kernels = [round(draw.uniform(0.1, longest), 2) for _ in range(count)]
            if count == 9:  # one long kernel in front: a lead that is used up later
                kernels = [20.0, *[round(draw.uniform(0.1, 1.0), 2) for _ in range(8)]]
            kept = list(kernels)
            got = _numbers(c.call(kernels, launch), count)
            c.expect(kernels == kept, "mutates-input", "Your function changes the list kernels_s.")
            answers.append(((kernels, launch), got, _launched(kernels, launch)))
    _judge(answers, _LAUNCH, ("kernels_s", "launch_s"), "kernel")
    empty = c.call([], 2.0)
    c.expect(empty is not None and len(list(empty)) == 0, "empty",
             "Without kernels there is no end: return an empty list.")
    c.sample = (([1e-6] * 200, 4e-6), {})


# ---------------------------------------------------------------- 5: planning ahead


def _ahead(plans: Sequence[float], runs: Sequence[float], lead: int) -> Times:
    """Step n may be planned when step n - lead has ended: lead 2 is the engine's."""
    planned, ends = 0.0, Times()
    for n, (plan, run) in enumerate(zip(plans, runs, strict=True)):
        may = ends[n - lead] if n >= lead else 0.0
        planned = max(planned, may) + plan
        ends.append(max(planned, ends[-1] if ends else 0.0) + run)
    return ends


def _parallel(plans: Sequence[float], runs: Sequence[float]) -> Times:
    planned, ends = 0.0, Times()
    for n, (plan, run) in enumerate(zip(plans, runs, strict=True)):
        planned = max(planned, ends[n - 2] if n > 1 else 0.0) + plan
        ends.append(planned + run)
    return ends


def _planned(plans: Sequence[float], runs: Sequence[float]) -> Times:
    ends, planned, found = _ahead(plans, runs, 2), 0.0, Times()
    for n, plan in enumerate(plans):
        planned = max(planned, ends[n - 2] if n > 1 else 0.0) + plan
        found.append(planned)
    return found


def _forgetful(plans: Sequence[float], runs: Sequence[float]) -> Times:
    """Waits for the end of step n - 2, but forgets that the host is still planning n - 1."""
    ends = Times()
    for n, (plan, run) in enumerate(zip(plans, runs, strict=True)):
        planned = (ends[n - 2] if n > 1 else 0.0) + plan
        ends.append(max(planned, ends[-1] if ends else 0.0) + run)
    return ends


_OVERLAP: Known = {
    "in-turn": (
        "Your host plans step n only when step n - 1 has ended: that is the engine without "
        "overlap. It needs to have read step n - 2 alone.",
        lambda p, r: _ahead(p, r, 1)),
    "unlimited": (
        "Your host plans ahead without ever waiting for the device. Step n needs the tokens of "
        "step n - 2: who has ended, and who goes on.",
        lambda p, r: _ahead(p, r, len(p) + 1)),
    "two-in-flight": (
        "Your host waits for step n - 3, so that two steps are in flight; it may be one step "
        "ahead, and plans step n when step n - 2 has ended.", lambda p, r: _ahead(p, r, 3)),
    "device-in-parallel": (
        "Your device begins a step as soon as it is planned, even while the step before it still "
        "runs.", _parallel),
    "plan-ends": ("You return when each step is planned; return when the device has ended it.",
                  _planned),
    "host-in-parallel": (
        "Your host begins to plan step n while it is still planning step n - 1: it also has to "
        "wait for itself.", _forgetful),
    "slower-lane-sum": (
        "You add the larger of plan and run for each step. That is the steady state; the first "
        "step has nothing to hide behind, and a single long plan hides behind a long run only.",
        lambda p, r: list(accumulate(max(a, b) for a, b in zip(p, r, strict=True)))),
    "run-only": ("You add up the device's time and leave out the planning.",
                 lambda p, r: list(accumulate(r))),
}


def overlapped(c: Check) -> None:
    """Hosts that are faster, slower and both in turn; one step, two steps, none."""
    answers = []
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for count, plan, run in ((8, 2.0, 6.0), (8, 6.0, 2.0), (11, 5.0, 5.0), (1, 2.0, 3.0),
                                 (2, 3.0, 3.0), (6, 9.0, 3.0)):
            plans = [round(draw.uniform(0.2, plan), 2) for _ in range(count)]
            runs = [round(draw.uniform(0.2, run), 2) for _ in range(count)]
            kept = (list(plans), list(runs))
            got = _numbers(c.call(plans, runs), count)
            c.expect((plans, runs) == kept, "mutates-input",
                     "Your function changes a list that it was given.")
            answers.append(((plans, runs), got, _ahead(plans, runs, 2)))
    _judge(answers, _OVERLAP, ("plan_s", "run_s"), "step")
    empty = c.call([], [])
    c.expect(empty is not None and len(list(empty)) == 0, "empty",
             "Without steps there is no end: return an empty list.")
    c.sample = (([3e-4] * 100, [1e-3] * 100), {})


# ---------------------------------------------------------------- 2: buckets


def _first(n: int, sizes: Sequence[int]) -> int | None:
    for size in sizes:
        if size >= n:
            return size
    return None


def _power(n: int, sizes: Sequence[int]) -> int | None:
    return 1 << max(n - 1, 0).bit_length() if n <= sizes[-1] else None


_BUCKET: dict[str, tuple[str, Callable[[int, Sequence[int]], int | None]]] = {
    "strictly-larger": (
        "A batch that fits exactly gets the next larger bucket: a bucket of 8 holds 8 requests.",
        lambda n, s: next((size for size in s if size > n), None)),
    "strictly-larger-or-last": (
        "A batch that fits exactly gets the next larger bucket: a bucket of 8 holds 8 requests.",
        lambda n, s: next((size for size in s if size > n), s[-1])),
    "largest-for-all": (
        "Every batch gets the largest bucket. It fits, but one request then pays for the padding "
        "of all the others: take the smallest that holds it.",
        lambda n, s: s[-1] if n <= s[-1] else None),
    "too-large-clamped": (
        "A batch that is larger than every bucket gets the largest one, and its last requests "
        "would have no row. Return None: such a batch runs uncaptured.",
        lambda n, s: _first(n, s) or s[-1]),
    "too-large-grown": (
        "A batch that is larger than every bucket gets a bucket of its own size, which nobody "
        "captured. Return None.", lambda n, s: _first(n, s) or n),
    "rounded-down": (
        "You take the largest bucket that is not larger than the batch; then some requests have "
        "no row. Take the smallest that holds them all.",
        lambda n, s: max((size for size in s if size <= n), default=None)),
    "nearest": ("You take the bucket that is nearest in size; it may be too small.",
                lambda n, s: min(s, key=lambda size: abs(size - n)) if n <= s[-1] else None),
    "nearest-for-all": ("You take the bucket that is nearest in size; it may be too small.",
                        lambda n, s: min(s, key=lambda size: abs(size - n))),
    "index": ("You return the place of the bucket in the list; return its size.",
              lambda n, s: s.index(_first(n, s)) if n <= s[-1] else None),
    "power-of-two": (
        "You compute the next power of two; look the sizes up in the list, which may hold any.",
        _power),
    "exact-only": ("Only a batch that is exactly as large as a bucket gets one; others are padded.",
                   lambda n, s: n if n in s else None),
    "zero": ("For a batch that is too large you return 0; return None.",
             lambda n, s: _first(n, s) or 0),
}


def bucket_of(c: Check) -> None:
    """Every batch from 1 to beyond the largest, for even and odd lists of sizes."""
    answers: list[tuple[int, list[int], Any, int | None]] = []
    lists = [[1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32, 64, 96, 100], [1], [3, 5, 17]]
    for seed in c.seeds(2):
        draw = random.Random(seed)
        lists.append(sorted(draw.sample(range(1, 60), 7)))
    for sizes in lists:
        for n in range(1, sizes[-1] + 3):
            given = list(sizes)
            got = c.call(n, given)
            c.expect(given == sizes, "mutates-input", "Your function changes the list of sizes.")
            if got is not None and (isinstance(got, bool) or not isinstance(got, int)):
                raise Mistake(f"Return one of the sizes, or None; for {n} requests you return "
                              f"{got!r}.", key="wrong-type")
            answers.append((n, sizes, got, _first(n, sizes)))
    wrong = [one for one in answers if one[2] != one[3]]
    if wrong:
        n, sizes, got, want = wrong[0]
        details = [f"{n} requests, buckets {sizes}: {want}; you say {got}."]
        for key, (words, formula) in _BUCKET.items():
            if all(g == formula(m, s) for m, s, g, _ in answers):
                raise Mistake(words, key=key, details=details)
        raise Mistake(details[0], key="wrong-values")
    c.sample = ((37, lists[1]), {})
