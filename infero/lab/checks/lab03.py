"""What Lab 3 demands of its six pieces, and the mistakes it knows by name.

Nothing here waits for a real clock. A pretended device runs in virtual time: launches return before
the work is done, the first calls are slow, and earlier work may still be queued, so every timing
has one right answer and a forgotten synchronisation shows without a GPU. The load generators meet
servers of known service time. Chapter 3 explains the pieces.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab03_load import closed_loop, open_loop
from infero.lab.checks.lab03_requests import goodput, latency
from infero.lab.checks.lab03_tools import compare, number, numbers

__all__ = ["closed_loop", "goodput", "latency", "open_loop", "percentile", "time_it"]

# ---------------------------------------------------------------- 1: time_it


@dataclass
class Device:
    """A pretended device with its clock, and the function to be timed on it.

    Call i costs the host `host_s[i]` and then leaves `device_s[i]` of work on the device's queue;
    `busy_s` of somebody else's work is queued at the start.
    """

    host_s: Sequence[float]
    device_s: Sequence[float]
    busy_s: float
    time_s: float
    free_s: float = 0.0
    calls: int = 0
    readings: int = 0

    def __post_init__(self) -> None:
        self.free_s = self.time_s + self.busy_s

    def now_s(self) -> float:
        self.readings += 1
        return self.time_s

    def synchronize(self) -> None:
        self.time_s = max(self.time_s, self.free_s)

    def sleep_until(self, when_s: float) -> None:
        self.time_s = max(self.time_s, when_s)

    def run(self) -> None:
        i = min(self.calls, len(self.host_s) - 1)
        self.calls += 1
        self.time_s += self.host_s[i]
        self.free_s = max(self.time_s, self.free_s) + self.device_s[i]


Timer = Callable[[Callable[[], object], Any, int, int], list[float]]


def _timer(before: bool, after: bool, warm: bool = True, late: bool = False) -> Timer:
    """A timer that waits before, or after, or neither; `late` reads the start after waiting."""

    def timer(run: Callable[[], object], clock: Any, warmup: int, repeats: int) -> list[float]:
        for _ in range(warmup if warm else 0):
            run()
        samples = []
        for _ in range(repeats):
            if before and late:
                clock.synchronize()
            start = clock.now_s()
            if before and not late:
                clock.synchronize()
            run()
            if after:
                clock.synchronize()
            samples.append(clock.now_s() - start)
        return samples

    return timer


def _once(run: Callable[[], object], clock: Any, warmup: int, repeats: int) -> list[float]:
    for _ in range(warmup):
        run()
    clock.synchronize()
    start = clock.now_s()
    for _ in range(repeats):
        run()
    clock.synchronize()
    return [(clock.now_s() - start) / repeats] * repeats


def _since_start(run: Callable[[], object], clock: Any, warmup: int, repeats: int) -> list[float]:
    for _ in range(warmup):
        run()
    clock.synchronize()
    start, samples = clock.now_s(), []
    for _ in range(repeats):
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return samples


_TIMERS: dict[str, tuple[str, Timer]] = {
    "no-synchronize": (
        "you read the clock as soon as `run()` returns, but it only queued its work: the samples "
        "are the time of the launch. Call clock.synchronize() after run() and before the clock.",
        _timer(True, False, late=True)),
    "no-synchronize-before": (
        "work that was queued earlier (by the warm-up, or before you were called) ends inside the "
        "first sample. Call clock.synchronize() before you read the start.", _timer(False, True)),
    "synchronize-after-start": (
        "you read the start and only then wait for earlier work, so that wait is in the sample. "
        "Wait first, then read the clock.", _timer(True, True)),
    "averaged": (
        "every sample is the same: you time all repeats together and share the time out. Time each "
        "call on its own, or the spread is lost.", _once),
    "since-start": (
        "the samples grow: each is counted from the start of the first. Read the clock again "
        "before every call.", _since_start),
}


def time_it(c: Check) -> None:
    """One right answer a scenario: launches, slow first calls, pending work, a plain CPU."""
    for seed in c.seeds(3):
        draw = random.Random(seed)
        for warmup, repeats, lazy, busy in ((3, 6, True, 0.0), (2, 5, True, 0.7), (0, 4, True, 0.4),
                                            (4, 1, True, 0.0), (2, 4, False, 0.0)):
            count = warmup + repeats
            host = [draw.uniform(1e-6, 9e-6) if lazy else draw.uniform(1e-3, 5e-3)
                    for _ in range(count + 3)]
            device = [draw.uniform(1e-3, 8e-3) if lazy else 0.0 for _ in range(count + 3)]
            host[0] += 0.9 if warmup else 0.0  # the first call builds things
            start = draw.uniform(5, 50)

            def fresh(host: list[float] = host, device: list[float] = device, busy: float = busy,
                      start: float = start) -> Device:
                return Device(host, device, busy, start)

            mine = fresh()
            got = c.call(mine.run, mine, warmup, repeats)
            _judge_timer(c, got, mine, fresh, warmup, repeats)


def _judge_timer(c: Check, got: Any, mine: Device, fresh: Callable[[], Device], warmup: int,
                 repeats: int) -> None:
    if isinstance(got, (int, float)):
        raise Mistake("You return one number; return the list of samples, so that whoever asked "
                      "can see their spread.", key="one-number")
    samples = numbers(c, got, "the list of samples")
    c.expect(mine.readings > 0, "own-clock",
             "You never read clock.now_s(): another clock (time.perf_counter, time.time) knows "
             "nothing of this device. Use the clock that was given.")
    warm = fresh()
    slow = _timer(True, True, warm=False, late=True)(warm.run, warm, warmup, repeats + warmup)
    c.expect(not warmup or len(samples) != len(slow), "warmup-timed",
             f"You give {len(samples)} samples for {repeats} repeats: the warm-up calls are timed "
             "too. Make them, and throw their times away.")
    c.expect(len(samples) == repeats, "wrong-length",
             f"You give {len(samples)} samples; one for each of the {repeats} repeats was asked "
             "for.")
    if warmup:
        first = torch.tensor(slow[:repeats], dtype=torch.float64)
        c.expect(mine.calls != repeats or not torch.allclose(samples, first), "no-warmup",
                 f"The first sample is the slow first call: make {warmup} untimed calls first.")
    c.expect(mine.calls == warmup + repeats, "wrong-calls",
             f"You call run() {mine.calls} times; {warmup} warm-up calls and {repeats} timed ones "
             f"make {warmup + repeats}.")
    want = torch.tensor([mine.host_s[i] + mine.device_s[i]
                         for i in range(warmup, warmup + repeats)], dtype=torch.float64)
    known: dict[str, tuple[str, torch.Tensor]] = {}
    for key, (words, timer) in _TIMERS.items():
        other = fresh()
        wrong = torch.tensor(timer(other.run, other, warmup, repeats), dtype=torch.float64)
        if not torch.allclose(wrong, want, rtol=1e-6, atol=0):
            known[key] = (words, wrong)
    if warmup:
        known["warmup-kept"] = ("these are the first samples, the warm-up's: you slice the wrong "
                                "end off", torch.tensor(slow[:repeats], dtype=torch.float64))
    if repeats > 1:
        known["sorted"] = ("the samples are sorted; give them in the order they were taken, which "
                           "shows drift", want.sort().values)
        known["reversed"] = ("the samples come in reverse order", want.flip(0))
    known["milliseconds"] = ("these are milliseconds; give seconds", 1e3 * want)
    compare(c, samples, want, known, axes=("sample",), what="the list of samples", atol=1e-9)


# ---------------------------------------------------------------- 2: percentile


def _exact(samples: Sequence[float], q: float) -> float:
    """The definition in exact arithmetic, as a weighted sum over all ranks."""
    ordered = sorted(Fraction(x) for x in samples)
    rank = Fraction(q) * (len(ordered) - 1) / 100
    weights = [max(Fraction(0), 1 - abs(rank - i)) for i in range(len(ordered))]
    return float(sum((w * x for w, x in zip(weights, ordered, strict=True)), Fraction(0)))


def _at(samples: Sequence[float], rank: float) -> float:
    """The value at a rank that may lie between two or outside, by linear interpolation."""
    ordered = sorted(samples)
    rank = min(max(rank, 0.0), len(ordered) - 1.0)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def _known_percentiles(samples: Sequence[float], q: float) -> dict[str, tuple[str, float]]:
    n, p, ordered = len(samples), q / 100, sorted(samples)
    place = (n - 1) * p
    low = min(max(math.floor(place), 0), n - 1)
    high = min(low + 1, n - 1)
    first, second = samples[low], samples[high]
    return {
        "not-sorted": ("you take the samples in the order they came; ranks are places in "
                       "ascending order, so sort a copy first",
                       first + (place - low) * (second - first)),
        "descending": ("you count the ranks from the largest sample; rank 0 is the smallest",
                       _at(samples, (n - 1) * (1 - p))),
        "lower": ("you take the sample at the rank below; between two ranks the value lies in "
                  "between", ordered[low]),
        "higher": ("you take the sample at the rank above; between two ranks the value lies in "
                   "between", ordered[math.ceil(place)]),
        "nearest": ("you round the rank to the nearest sample; interpolate between the two",
                    ordered[round(place)]),
        "midpoint": ("you take the middle of the two neighbours; weigh them by how far the rank "
                     "is from each", (ordered[low] + ordered[math.ceil(place)]) / 2),
        "share-swapped": ("the two neighbours have each other's weight: close to the lower rank "
                          "the value is close to the lower sample",
                          ordered[low] if place == low else
                          (place - low) * ordered[low] + (1 - place + low) * ordered[high]),
        "rank-n": ("the rank is computed as n * q / 100; the largest sample has rank n - 1, so it "
                   "is (n - 1) * q / 100", _at(samples, n * p)),
        "nearest-rank": ("this is the nearest-rank percentile, the sample at place ceil(n * q / "
                         "100); here the value is interpolated",
                         ordered[min(max(math.ceil(n * p) - 1, 0), n - 1)]),
        "exclusive": ("the rank is computed as (n + 1) * q / 100 - 1 (another of the nine common "
                      "definitions); here it is (n - 1) * q / 100", _at(samples, (n + 1) * p - 1)),
        "hazen": ("the rank is computed as n * q / 100 - 1/2 (another of the nine common "
                  "definitions); here it is (n - 1) * q / 100", _at(samples, n * p - 0.5)),
        "share-not-percent": ("here q is taken as a share; it is a percentage, 99 and not 0.99",
                              _at(samples, (n - 1) * q)),
        "percent-twice": ("q is divided by 100 twice", _at(samples, (n - 1) * p / 100)),
        "mean": ("this is the mean", sum(samples) / n),
    }


def percentile(c: Check) -> None:
    """Against the definition in fractions, for many sizes, with ties and with infinite samples."""
    cases: list[tuple[list[float], float, float]] = []
    for seed in c.seeds(3):
        draw = random.Random(seed)
        for n in (23, 12, 2, 5, 1, 101):
            samples = [draw.choice((1, -1)) * draw.expovariate(1.0) for _ in range(n)]
            if n == 12:
                samples[3] = samples[7] = samples[8]
            for q in (draw.uniform(10, 90), 50, 99, 0, 100, 12.5, 95):
                mine = list(samples)
                got = number(c, c.call(mine, q), "the percentile")
                c.expect(mine == samples, "mutates-input",
                         "Your function changes the order of `samples`; sort a copy: sorted(...).")
                cases.append((samples, q, got))
        frozen = tuple(draw.random() for _ in range(9))
        cases.append((list(frozen), 37, number(c, c.call(frozen, 37), "the percentile")))
    _judge_percentiles(c, cases)
    _infinite_samples(c)
    for samples, q, words in (([], 50.0, "no samples at all"), ([1.0, 2.0], 101.0, "q = 101"),
                              ([1.0, 2.0], -1.0, "q = -1")):
        c.expect_raises(ValueError, samples, q, key="no-error",
                        words=f"For {words} there is no percentile: raise ParameterError, as the "
                              "first lines of the stub do.")


def _judge_percentiles(c: Check, cases: list[tuple[list[float], float, float]]) -> None:
    """Name the known mistake that explains all results; else show the first wrong one."""
    want = [_exact(samples, q) for samples, q, _ in cases]
    made = [_known_percentiles(samples, q) for samples, q, _ in cases]
    got = torch.tensor([g for _, _, g in cases], dtype=torch.float64)
    for key, (words, _) in made[0].items():
        wrong = torch.tensor([known[key][1] for known in made], dtype=torch.float64)
        off = (got - torch.tensor(want)).abs().max() > 1e-9
        same = torch.allclose(got, wrong, rtol=1e-9, atol=1e-12)
        c.expect(not (off and same), key, f"{words[:1].upper()}{words[1:]}.")
    for (samples, q, value), right in zip(cases, want, strict=True):
        compare(c, value, right, {}, what=f"percentile {q:g} of {len(samples)} samples",
                atol=1e-12, rtol=1e-9)


def _infinite_samples(c: Check) -> None:
    inf = math.inf
    for samples, q, want in (([3.0, inf, 1.0, 2.0, inf], 50, 3.0), ([inf, 1.0, inf], 100, inf),
                             ([inf, 1.0, inf, 2.0], 75, inf), ([4.0, inf], 0, 4.0),
                             ([4.0, inf], 25, inf), ([inf], 50, inf)):
        got = c.call(list(samples), q)
        value = math.nan if got is None else float(got)
        c.expect(not math.isnan(value), "infinite-samples",
                 f"Percentile {q} of {samples} is NaN. A failed request is an infinite sample: "
                 "inf - inf and 0 * inf are NaN, so add the two neighbours with their weights, and "
                 "return the one sample where the rank is whole.")
        compare(c, value, want, {}, what=f"percentile {q} of {samples}")
