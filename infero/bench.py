"""Timers, percentiles, load generators and the queue they are tested against.

Chapter 3 explains the traps; Lab 3 has the reader write `time_it`, `percentile`, `latency`,
`goodput`, `open_loop` and `closed_loop`. Everything that tells the time goes through a `Clock`, so
the same code times a CPU, a GPU whose launches return before the work is done, and a pretended
device in virtual time, on which a measurement has one right answer and takes no time at all.
`bench_engine.py` turns these functions on the engine.

Sources: percentiles by linear interpolation (Hyndman and Fan 1996, type 7); waiting times
(Kleinrock, Queueing Systems, vol. 1, 1975); goodput under two limits (DistServe, arXiv:2401.09670).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infero.errors import ParameterError

# ---------------------------------------------------------------- clocks


class Clock(Protocol):
    """What a timer needs to know about a device."""

    def now_s(self) -> float:
        """The wall clock in seconds; only differences mean anything."""

    def synchronize(self) -> None:
        """Wait until the device has done all the work it was given."""

    def sleep_until(self, when_s: float) -> None:
        """Wait until `now_s()` is `when_s`; returns at once if that has passed."""


class CpuClock:
    """Work on the CPU is done when the call returns: nothing to wait for."""

    def now_s(self) -> float:
        return time.perf_counter()

    def synchronize(self) -> None:
        return None

    def sleep_until(self, when_s: float) -> None:
        left = when_s - time.perf_counter()
        if left > 0:
            time.sleep(left)


class CudaClock(CpuClock):
    """The same wall clock; the GPU works behind the host's back until it is waited for."""

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize()


@dataclass
class VirtualClock:
    """A pretended device in virtual time: `launch` queues work and returns, as on a GPU."""

    host_s: float = 0.0  # the time on the host's clock
    device_free_s: float = 0.0  # when the device has done all it was given

    def now_s(self) -> float:
        return self.host_s

    def synchronize(self) -> None:
        self.host_s = max(self.host_s, self.device_free_s)

    def sleep_until(self, when_s: float) -> None:
        self.host_s = max(self.host_s, when_s)

    def spend(self, seconds: float) -> None:
        """The host itself is busy for so long."""
        self.host_s += seconds

    def launch(self, device_s: float, host_s: float = 0.0) -> None:
        """Queue `device_s` of work; the call costs the host only `host_s`."""
        self.host_s += host_s
        self.device_free_s = max(self.host_s, self.device_free_s) + device_s


def clock_of(device: object) -> Clock:
    """The clock of a torch device or of its name ("cpu", "cuda:0")."""
    return CudaClock() if str(device).startswith("cuda") else CpuClock()


# ---------------------------------------------------------------- timing (Lab 3, exercise 1)


def time_it(run: Callable[[], object], clock: Clock, warmup: int, repeats: int) -> list[float]:
    """Seconds each of `repeats` calls of `run()` takes, from its start to the device being done.

    `run` may return before the device has finished what it was given. First come `warmup` calls
    that are not timed. A sample holds all of its own call's work and none that was given to the
    device before: not the warm-up's, not what was pending when `time_it` was called. `clock` has
    `now_s()` and `synchronize()`. Returns one sample a repeat, in order.
    """
    for _ in range(warmup):
        run()
    samples = []
    for _ in range(repeats):
        clock.synchronize()  # nobody else's work may end inside this sample
        start_s = clock.now_s()
        run()
        clock.synchronize()  # and none of its own outside
        samples.append(clock.now_s() - start_s)
    return samples


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one thing."""

    samples_s: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.samples_s)

    @property
    def median_s(self) -> float:
        return percentile(self.samples_s, 50)

    @property
    def mean_s(self) -> float:
        return sum(self.samples_s) / self.n

    @property
    def iqr_s(self) -> float:
        """Interquartile range: the width of the middle half."""
        return percentile(self.samples_s, 75) - percentile(self.samples_s, 25)

    @property
    def spread(self) -> float:
        """The interquartile range as a share of the median."""
        return self.iqr_s / self.median_s if self.median_s else 0.0

    def __str__(self) -> str:
        return f"{self.median_s:.3g} s (IQR {100 * self.spread:.1f} %, n = {self.n})"


def measure(run: Callable[[], object], clock: Clock | None = None, *, warmup: int = 3,
            min_time_s: float = 0.3, min_repeats: int = 5, max_repeats: int = 1000) -> Timing:
    """Time `run` for at least `min_time_s` in all: few repeats of slow work, many of quick work."""
    clock = clock or CpuClock()
    samples = time_it(run, clock, warmup, min_repeats)
    left_s = min_time_s - sum(samples)
    if left_s > 0:
        each_s = max(percentile(samples, 50), 1e-9)
        more = min(math.ceil(left_s / each_s), max_repeats - min_repeats)
        samples += time_it(run, clock, 0, more)
    return Timing(tuple(samples))


def cuda_event_samples(run: Callable[[], object], warmup: int, repeats: int) -> list[float]:
    """Seconds between two events in the GPU's own queue around each call, without waiting between.

    The host runs ahead, so the time of a launch is hidden as long as the GPU has work queued: this
    measures the device, where `time_it` measures what a waiting user sees.
    """
    import torch

    for _ in range(warmup):
        run()
    pairs = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(repeats)]
    torch.cuda.synchronize()
    for start, end in pairs:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) * 1e-3 for start, end in pairs]


# ---------------------------------------------------------------- percentiles (exercise 2)


def percentile(samples: Sequence[float], q: float) -> float:
    """The value that `q` percent of the samples do not exceed, by linear interpolation.

    The n samples in ascending order stand at ranks 0 to n - 1, and the q-th percentile at rank
    (n - 1) * q / 100; between two ranks the value goes over linearly from one to the other.
    `samples` is unordered and stays as it is; 0 <= q <= 100. An infinite sample (a request that
    failed) is larger than every other. Equals numpy.percentile's default.
    """
    if not samples or not 0 <= q <= 100:
        raise ParameterError(f"percentile {q} of {len(samples)} samples: 0 <= q <= 100, n >= 1")
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    share = rank - low
    if share == 0:
        return ordered[low]
    return (1 - share) * ordered[low] + share * ordered[low + 1]


def percentile_interval(samples: Sequence[float], q: float, confidence: float = 0.95
                        ) -> tuple[float, float]:
    """Two samples between which the true percentile lies with this confidence, whatever the shape.

    The number of samples below the true percentile is binomial (n, q/100), so a range of ranks that
    the binomial hits with probability `confidence` names two samples. An end that would need more
    samples than there are is infinite.
    """
    n, p = len(samples), q / 100
    if n == 0 or not 0 < p < 1 or not 0 < confidence < 1:
        raise ParameterError(f"interval of percentile {q} of {n} samples at {confidence}: needs "
                             "samples, 0 < q < 100 and 0 < confidence < 1")
    ordered, tail = sorted(samples), (1 - confidence) / 2
    below, low, high = 0.0, -1, n
    for k in range(n + 1):  # below = P(at most k samples lie below the true percentile)
        log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        below += math.exp(log_ways + k * math.log(p) + (n - k) * math.log1p(-p))
        if below <= tail:
            low = k
        if below >= 1 - tail:
            high = k
            break
    return (ordered[low] if low >= 0 else -math.inf, ordered[high] if high < n else math.inf)


# ---------------------------------------------------------------- requests (exercises 3a, 3b)


@dataclass(frozen=True)
class Latency:
    """How long one request took: to its first token, from token to token, to its end."""

    ttft_s: float
    tpot_s: float
    e2e_s: float


def latency(due_s: float, token_times_s: Sequence[float]) -> Latency:
    """TTFT, TPOT and E2E of one request, from when it was due and when each token arrived.

    TTFT is the wait for the first token, E2E for the last, both from `due_s`. TPOT (time per
    output token) is the mean gap between neighbouring tokens, 0.0 where there is only one token.
    A request without tokens has failed: all three are infinite. All times are on one clock.
    """
    if not token_times_s:
        return Latency(math.inf, math.inf, math.inf)
    first_s, last_s = token_times_s[0], token_times_s[-1]
    gaps = len(token_times_s) - 1
    tpot_s = (last_s - first_s) / gaps if gaps else 0.0
    return Latency(first_s - due_s, tpot_s, last_s - due_s)


def inter_token_s(token_times_s: Sequence[float]) -> list[float]:
    """The gaps between neighbouring tokens (ITL); TPOT is their mean."""
    return [b - a for a, b in itertools.pairwise(token_times_s)]


def goodput(latencies: Sequence[Latency], duration_s: float, ttft_slo_s: float,
            tpot_slo_s: float) -> float:
    """Requests per second that kept both limits, over a run of `duration_s`.

    A request counts when its TTFT is at most `ttft_slo_s` and its TPOT at most `tpot_slo_s`.
    """
    good = sum(one.ttft_s <= ttft_slo_s and one.tpot_s <= tpot_slo_s for one in latencies)
    return good / duration_s


# ---------------------------------------------------------------- load (exercises 4, 5)


def poisson_arrivals(rate_per_s: float, n: int, seed: int) -> list[float]:
    """Times of n requests of many users who know nothing of one another: exponential gaps."""
    draw, now, times = random.Random(seed), 0.0, []
    for _ in range(n):
        now += draw.expovariate(rate_per_s)
        times.append(now)
    return times


def constant_arrivals(rate_per_s: float, n: int) -> list[float]:
    """Times of n requests at an even pace, the first after one gap."""
    return [(i + 1) / rate_per_s for i in range(n)]


def open_loop(send: Callable[[int], object], due_s: Sequence[float], clock: Clock) -> list[float]:
    """Latency in seconds of each request when request i is due at `due_s[i]` on the clock.

    `send(i)` sends request i and blocks until its answer is complete. A request is sent at its due
    time, or as soon as the answer before it is complete where that is later; its user has been
    waiting since it was due. `clock` has `now_s()` and `sleep_until(when_s)`; the due times ascend.
    """
    latencies = []
    for i, due in enumerate(due_s):
        clock.sleep_until(due)
        send(i)
        latencies.append(clock.now_s() - due)
    return latencies


def closed_loop(server: Callable[[float], float], clients: int, requests: int,
                think_s: float) -> list[float]:
    """Latencies of `requests` requests made by `clients` clients, in the order they are sent.

    `server(sent_s)` takes a request at virtual time `sent_s` and returns when its answer is
    complete; its calls must come in ascending order of time. Every client sends its first request
    at time 0, waits for the answer, thinks for `think_s`, and sends its next.
    """
    next_send = [0.0] * clients  # one entry a client; a heap, so the earliest comes first
    latencies = []
    for _ in range(requests):
        sent_s = heapq.heappop(next_send)
        done_s = server(sent_s)
        latencies.append(done_s - sent_s)
        heapq.heappush(next_send, done_s + think_s)
    return latencies


async def open_loop_async(send: Callable[[int], Awaitable[object]], due_s: Sequence[float],
                          clock: Clock) -> list[float]:
    """`open_loop` for a server that works on many requests at once: sending never waits."""

    async def one(i: int, due: float) -> float:
        await asyncio.sleep(max(0.0, due - clock.now_s()))
        await send(i)
        return clock.now_s() - due

    return list(await asyncio.gather(*(one(i, due) for i, due in enumerate(due_s))))


# ---------------------------------------------------------------- a queue of known behaviour


@dataclass
class SerialQueue:
    """A server with one worker, first come first served, in virtual time: `queue(arrival_s)`.

    `service_s()` gives the next request's time of work; the call returns when it is done.
    """

    service_s: Callable[[], float]
    free_s: float = 0.0
    busy_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)

    def __call__(self, arrival_s: float) -> float:
        start_s = max(arrival_s, self.free_s)
        work_s = self.service_s()
        self.waits_s.append(start_s - arrival_s)
        self.busy_s += work_s
        self.free_s = start_s + work_s
        return self.free_s


def mean_wait_s(rate_per_s: float, service_s: float, variation: float = 0.0) -> float:
    """Mean wait before service of Poisson arrivals at one worker (Pollaczek and Khinchine).

    `variation` is the service time's variance over its squared mean: 0 for a constant time (M/D/1),
    1 for an exponential one (M/M/1). Infinite where work comes faster than it is done.
    """
    load = rate_per_s * service_s
    if load >= 1:
        return math.inf
    return load * service_s * (1 + variation) / (2 * (1 - load))


def requests_in_flight(throughput_per_s: float, latency_s: float) -> float:
    """Little's law: the mean number of requests inside is throughput times mean latency."""
    return throughput_per_s * latency_s
