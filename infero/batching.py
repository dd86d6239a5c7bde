"""Three ways to share the passes of one model: static, dynamic and iteration-level batching.

Chapter 10 explains them; `static_steps` and `continuous_steps` are exercises of Lab 10.
Iteration-level (continuous) batching is Orca's (Yu et al., OSDI 2022). Time is counted in forward
passes: a request of length n takes part in n passes, the first of which computes its prompt and
yields its first token, so the counts hold for any model. `infero bench throughput` divides them to
get the ideal gain; `simulate` follows every request, with arrivals, for the chapter's figures.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from infero.errors import ParameterError

POLICIES = ("static", "dynamic", "continuous")


def static_steps(lengths: Sequence[int], slots: int) -> int:
    """Forward passes that static batching needs for requests of these lengths.

    lengths: tokens each request will produce, in the order of service; slots: requests a batch
    holds. The first `slots` requests run together until the longest of them ends; only then do the
    next `slots` start (the last group may be smaller). No requests take no pass.
    """
    groups = [lengths[first : first + slots] for first in range(0, len(lengths), slots)]
    return sum(max(group) for group in groups)


def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    """Forward passes that continuous batching needs for requests of these lengths.

    lengths: tokens each request will produce, in the order of service; slots: requests that run at
    once. When a request ends, the next one in order takes its slot in the very next pass. Returns
    the number of the pass that yields the last token; no requests take no pass.
    """
    ends = [0] * slots  # the pass after which each slot is free, the earliest at the front
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def ideal_gain(lengths: Sequence[int], slots: int) -> float:
    """Passes of static over passes of continuous batching: the gain if all passes cost the same."""
    return static_steps(lengths, slots) / continuous_steps(lengths, slots)


def geometric_lengths(count: int, mean: float, cap: int, seed: int) -> list[int]:
    """Random output lengths: each further token comes with probability 1 - 1/mean, up to cap."""
    if mean <= 1:
        return [1] * count
    draw, rate = random.Random(seed), math.log1p(-1 / mean)
    return [min(cap, 1 + int(math.log(1 - draw.random()) / rate)) for _ in range(count)]


def expected_longest(mean: float, cap: int, slots: int) -> float:
    """Mean length of the longest of `slots` independent geometric lengths, cut at `cap`."""
    stay = 1 - 1 / mean  # P(length > t) = stay ** t
    return sum(1 - (1 - stay**t) ** slots for t in range(cap))


# ---------------------------------------------------------------- whole traces


@dataclass(frozen=True)
class Service:
    """One request's way through the batch, in passes. It has its slot in [start, released) and
    produces a token in each pass of [start, end)."""

    request: int
    slot: int
    arrival: int
    start: int
    end: int
    released: int

    @property
    def waited(self) -> int:
        return self.start - self.arrival

    @property
    def latency(self) -> int:
        """Passes from arrival to the last token."""
        return self.end - self.arrival


@dataclass(frozen=True)
class Trace:
    """What one policy did with one list of requests."""

    policy: str
    slots: int
    services: tuple[Service, ...]  # in the order of the requests

    @property
    def makespan(self) -> int:
        """The pass after which everything is done, idle time included."""
        return max((s.end for s in self.services), default=0)

    def active(self) -> list[int]:
        """Slots that produce a token, for every pass from 0 to the makespan."""
        return self._covered([(s.start, s.end) for s in self.services])

    def held(self) -> list[int]:
        """Slots that are taken, by a request that works or by one that waits for its batch."""
        return self._covered([(s.start, s.released) for s in self.services])

    @property
    def passes(self) -> int:
        """Passes in which the model runs at all."""
        return sum(1 for n in self.active() if n)

    @property
    def utilisation(self) -> float:
        """Tokens produced over slots times passes: the share of the batch that did work."""
        tokens = sum(s.end - s.start for s in self.services)
        return tokens / (self.slots * self.passes) if tokens else 0.0

    @property
    def mean_latency(self) -> float:
        return sum(s.latency for s in self.services) / max(len(self.services), 1)

    def _covered(self, spans: list[tuple[int, int]]) -> list[int]:
        counts = [0] * self.makespan
        for first, last in spans:
            for step in range(first, last):
                counts[step] += 1
        return counts


def simulate(policy: str, lengths: Sequence[int], slots: int, arrivals: Sequence[int] | None = None,
             window: int = 0) -> Trace:
    """Serve requests in order of arrival under one of POLICIES.

    lengths: tokens of each request, at least 1; arrivals: the pass before which each arrives
    (default: all at 0). "static" starts a batch when `slots` requests wait (or no more will
    come), "dynamic" also when the oldest has waited `window` passes; both hold the batch until its
    longest request ends. "continuous" fills free slots before every pass.
    """
    arrived = list(arrivals) if arrivals is not None else [0] * len(lengths)
    _validate(policy, lengths, slots, arrived, window)
    order = sorted(range(len(lengths)), key=lambda i: (arrived[i], i))
    serve = _continuous if policy == "continuous" else _in_batches
    wait = {"static": None, "dynamic": window, "continuous": 0}[policy]
    services = serve(order, lengths, slots, arrived, wait)
    return Trace(policy, slots, tuple(sorted(services, key=lambda s: s.request)))


def _in_batches(order: list[int], lengths: Sequence[int], slots: int, arrived: list[int],
                window: int | None) -> list[Service]:
    services: list[Service] = []
    free_at = first = 0
    while first < len(order):
        oldest = arrived[order[first]]
        full = first + slots <= len(order)
        complete = arrived[order[first + slots - 1]] if full else arrived[order[-1]]
        start = max(free_at, complete if window is None else min(complete, oldest + window))
        members = [i for i in order[first : first + slots] if arrived[i] <= start]
        free_at = start + max(lengths[i] for i in members)
        for slot, i in enumerate(members):
            services.append(Service(i, slot, arrived[i], start, start + lengths[i], free_at))
        first += len(members)
    return services


def _continuous(order: list[int], lengths: Sequence[int], slots: int, arrived: list[int],
                _window: int | None) -> list[Service]:
    services: list[Service] = []
    free = [(0, slot) for slot in range(slots)]  # (pass it is free from, slot), a heap
    for i in order:
        ready, slot = free[0]
        start = max(ready, arrived[i])
        end = start + lengths[i]
        heapq.heapreplace(free, (end, slot))
        services.append(Service(i, slot, arrived[i], start, end, end))
    return services


def _validate(policy: str, lengths: Sequence[int], slots: int, arrived: list[int],
              window: int) -> None:
    if policy not in POLICIES:
        raise ParameterError(f"policy is {policy!r}; it must be one of {', '.join(POLICIES)}.")
    if slots < 1:
        raise ParameterError(f"slots is {slots}; a batch has at least 1.")
    if any(n < 1 for n in lengths):
        raise ParameterError(f"a length is {min(lengths)}; a request yields at least 1 token.")
    if len(arrived) != len(lengths) or any(a < 0 for a in arrived):
        raise ParameterError(f"arrivals are {len(arrived)} numbers for {len(lengths)} requests; "
                             "give each request one pass number of at least 0.")
    if window < 0:
        raise ParameterError(f"window is {window} passes; it must be at least 0.")
