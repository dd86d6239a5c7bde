"""The checks of Lab 3's two load generators, against servers of known service time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from infero.lab.checking import Check, Mistake
from infero.lab.checks.lab03_tools import compare, numbers


def _tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---------------------------------------------------------------- 4: open_loop


@dataclass
class Server:
    """A clock, and a server that answers request i after `service_s[i]` of virtual time."""

    service_s: list[float]
    time_s: float
    sent: list[tuple[int, float]] = field(default_factory=list)
    readings: int = 0
    sleeps: int = 0

    def now_s(self) -> float:
        self.readings += 1
        return self.time_s

    def synchronize(self) -> None:
        return None

    def sleep_until(self, when_s: float) -> None:
        self.sleeps += 1
        self.time_s = max(self.time_s, when_s)

    def send(self, i: int) -> None:
        if not isinstance(i, int) or not 0 <= i < len(self.service_s):
            raise Mistake(f"send takes the number of a request, 0 to {len(self.service_s) - 1}; "
                          f"you call send({i!r}).", key="wrong-request")
        self.sent.append((i, self.time_s))
        self.time_s += self.service_s[i]


def open_loop(c: Check) -> None:
    """A server with one long stall among short answers, at a clock that does not start at zero."""
    for seed in c.seeds(4):
        draw = random.Random(seed)
        for n, stall in ((12, True), (9, False), (1, False), (0, False), (25, True)):
            service = [draw.uniform(0.01, 0.05) for _ in range(n)]
            if stall:
                service[n // 3] = draw.uniform(0.8, 1.2)
            start = draw.uniform(100, 900)
            due, now = [], start
            for _ in range(n):
                now += draw.expovariate(12.0)
                due.append(now)
            server, kept = Server(service, start), list(due)
            got = numbers(c, c.call(server.send, due, server), "the list of latencies")
            c.expect(due == kept, "mutates-input", "Your function changes `due_s`.")
            _judge_open(c, got, server, due, start)


def _judge_open(c: Check, got: torch.Tensor, server: Server, due: list[float], start: float
                ) -> None:
    n, service = len(due), server.service_s
    c.expect(len(got) == n, "wrong-length",
             f"You give {len(got)} latencies for {n} requests; give one each, whatever happened.")
    if not n:
        return
    c.expect(server.readings > 0, "own-clock",
             "You never read clock.now_s(); time.time() and perf_counter() know nothing of this "
             "server's time.")
    c.expect([i for i, _ in server.sent] == list(range(n)), "wrong-requests",
             f"send must be called once for each of the {n} requests, in order; you called it for "
             f"{[i for i, _ in server.sent][:12]}.")
    done = sent_late = start
    want, blind, early, shifted = [], [], [], []
    drift = rushed = start
    for i in range(n):
        begin = max(due[i], done)
        blind.append(service[i])
        done = begin + service[i]
        want.append(done - due[i])
        rushed += service[i]  # nobody waits for the schedule
        early.append(rushed - due[i])
        drift += due[i] - (due[i - 1] if i else start)  # gaps slept after each answer
        shifted.append(drift + service[i] - due[i])
        drift += service[i]
        sent_late = max(sent_late, begin)
    compare(c, got, _tensor(want), {
        "coordinated-omission": (
            "each latency is counted from the moment the request was sent. After a stall requests "
            "go out late, and their users' waiting is left out: this is coordinated omission. "
            "Count from due_s[i]", _tensor(blind)),
        "no-schedule": ("requests are sent as soon as the answer before them is there: wait with "
                        "clock.sleep_until(due_s[i]) first", _tensor(early)),
        "gaps-after-answers": ("you sleep the gap between two due times after each answer, so the "
                               "schedule slips with every answer; sleep until the due time itself",
                               _tensor(shifted)),
        "from-start": ("latencies are counted from the start of the run; count each from its own "
                       "due time",
                       _tensor([w + d - start for w, d in zip(want, due, strict=True)])),
        "waiting-only": ("this is the time until the request is sent; its answer comes later. Read "
                         "the clock after send", _tensor([w - s for w, s in
                                                          zip(want, service, strict=True)])),
        "service-added": ("the time of the answer is counted twice", _tensor(
            [w + s for w, s in zip(want, service, strict=True)])),
    }, axes=("request",), what="the list of latencies", atol=1e-9)
    times = [at for _, at in server.sent]
    c.expect(all(at >= d - 1e-9 for at, d in zip(times, due, strict=True)), "too-early",
             "A request is sent before it is due.")


# ---------------------------------------------------------------- 5: closed_loop

ServerOf = Callable[[], Callable[[float], float]]


class Watched:
    """A server that insists on being asked in ascending order of time, and notes when."""

    def __init__(self, serve: Callable[[float], float]) -> None:
        self.serve, self.last_s = serve, 0.0
        self.sent: list[float] = []

    def __call__(self, sent_s: float) -> float:
        if sent_s < self.last_s - 1e-12:
            raise Mistake(
                f"The server is asked about time {sent_s:.3f} after it was asked about "
                f"{self.last_s:.3f}. The next to send is always the client that is ready first, "
                "not the next in a fixed order.", key="out-of-order")
        self.last_s = sent_s
        self.sent.append(sent_s)
        return self.serve(sent_s)


def serial(services: list[float]) -> Callable[[float], float]:
    """One worker, first come first served."""
    free_s, i = 0.0, 0

    def serve(sent_s: float) -> float:
        nonlocal free_s, i
        free_s = max(free_s, sent_s) + services[i % len(services)]
        i += 1
        return free_s

    return serve


def parallel(services: list[float]) -> Callable[[float], float]:
    """A worker for everybody: later requests can be done earlier."""
    i = 0

    def serve(sent_s: float) -> float:
        nonlocal i
        i += 1
        return sent_s + services[(i - 1) % len(services)]

    return serve


def _run(serve: Callable[[float], float], clients: int, requests: int, think: float
         ) -> list[float]:
    """The definition, with a list of clients that is searched for the earliest."""
    ready = [0.0] * clients
    latencies: list[float] = []
    while len(latencies) < requests:
        who = min(range(clients), key=lambda k: ready[k])
        done = serve(ready[who])
        latencies.append(done - ready[who])
        ready[who] = done + think
    return latencies


def closed_loop(c: Check) -> None:
    """Serial and parallel servers, thinking and not, fewer requests than clients, none at all."""
    for seed in c.seeds(3):
        draw = random.Random(seed)
        for clients, requests, think in ((4, 25, draw.uniform(0.3, 2)), (3, 20, 0.0), (1, 6, 0.4),
                                         (5, 3, 0.1), (7, 40, draw.uniform(2, 5)), (2, 0, 0.0)):
            services = [draw.uniform(0.1, 1.5) for _ in range(max(requests, 1))]
            for make in (serial, parallel):
                server = Watched(make(services))
                got = numbers(c, c.call(server, clients, requests, think),
                              "the list of latencies")
                _judge_closed(c, got, server, partial(make, services), clients, requests, think)


def _judge_closed(c: Check, got: torch.Tensor, server: Watched, fresh: ServerOf, clients: int,
                  requests: int, think: float) -> None:
    c.expect(not (clients > 1 and len(got) == clients * requests != requests), "per-client",
             f"You make {requests} requests a client; `requests` is the number of all of them "
             "together.")
    c.expect(len(got) == requests, "wrong-length",
             f"You give {len(got)} latencies; {requests} requests were asked for.")
    c.expect(len(server.sent) == requests, "wrong-calls",
             f"You ask the server {len(server.sent)} times for {requests} requests.")
    if not requests:
        return
    want = _run(fresh(), clients, requests, think)
    c.expect(abs(server.sent[0]) < 1e-9, "thinks-first",
             f"The first request goes out at time {server.sent[0]:.3f}; every client sends its "
             "first at time 0 and thinks after an answer.")
    known: dict[str, Any] = {
        "answer-times": ("these are the moments of the answers; take off when each was sent",
                         _tensor(_answers(fresh(), clients, requests, think))),
        "one-client": ("there is only one request at a time: you run one client instead of "
                       f"{clients}", _tensor(_run(fresh(), 1, requests, think))),
        "no-thinking": ("a client sends again at once; it thinks for think_s first",
                        _tensor(_run(fresh(), clients, requests, 0.0))),
        "think-in-latency": ("the latency includes the time a client thinks; it ends with the "
                             "answer", _tensor([w + think for w in want])),
        "one-client-more": ("you run one client too many",
                            _tensor(_run(fresh(), clients + 1, requests, think))),
        "open": ("nobody waits for an answer: every request is sent at time 0",
                 _tensor([serve(0.0) for serve in [fresh()] for _ in range(requests)])),
    }
    compare(c, got, _tensor(want), known, axes=("request",), what="the list of latencies",
            atol=1e-9)


def _answers(serve: Callable[[float], float], clients: int, requests: int, think: float
             ) -> list[float]:
    seen: list[float] = []

    def noted(sent_s: float) -> float:
        seen.append(serve(sent_s))
        return seen[-1]

    _run(noted, clients, requests, think)
    return seen
