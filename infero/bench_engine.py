"""`infero bench`: the engine under an open and a closed load, with `bench.py`'s functions.

Chapter 3 says how to read the table. The main thread runs the engine's steps; the users are threads
that send and wait, in real time: one for the open loop, one a client for the closed loop. Engines
without a step loop (and `one_at_a_time`) get each request when the one before it is answered, so
that requests queue in front of the engine.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infero import bench
from infero.errors import ParameterError

if TYPE_CHECKING:
    from infero.llm import LLM

IDLE_S = 0.005  # how long the step loop of an idle engine sleeps at most


@dataclass(frozen=True)
class Workload:
    """What is asked of the engine: how many requests of what size, under which limits."""

    requests: int = 16
    prompt_tokens: int = 64
    new_tokens: int = 32
    ttft_slo_s: float = 1.0
    tpot_slo_s: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("requests", "prompt_tokens", "new_tokens", "ttft_slo_s", "tpot_slo_s"):
            if getattr(self, name) <= 0:
                raise ParameterError(f"{name} is {getattr(self, name)}; it must be above 0.")


@dataclass(frozen=True)
class Report:
    """One run under one load; `stopped`: by Ctrl-C, so only the answered requests are in it.

    late_s: how late, at worst, the load generator itself sent a request.
    """

    load: str
    duration_s: float
    tokens: int
    latencies: Sequence[bench.Latency]
    goodput_per_s: float
    late_s: float = 0.0
    stopped: bool = False

    @property
    def requests_per_s(self) -> float:
        return len(self.latencies) / self.duration_s

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.duration_s

    def percentile(self, name: str, q: float) -> float:
        """Percentile of "ttft_s", "tpot_s" or "e2e_s"."""
        return bench.percentile([getattr(one, name) for one in self.latencies], q)


class _Stopped(Exception):
    """The run ends before this client has its answer."""


class Client:
    """Sends random prompts of one length to an engine and notes when each token came."""

    def __init__(self, llm: LLM, work: Workload) -> None:
        from infero.sampling import SamplingParams

        draw, vocab = random.Random(work.seed), llm.model.config.vocab_size
        self.llm, self.clock = llm, bench.clock_of(llm.model.device)
        self.prompts = [[draw.randrange(vocab) for _ in range(work.prompt_tokens)]
                        for _ in range(work.requests)]
        self.params = SamplingParams(temperature=0.0, max_tokens=work.new_tokens, ignore_eos=True)
        self.times_s: list[list[float]] = [[] for _ in range(work.requests)]
        self.due_s = [0.0] * work.requests
        self.answered = [threading.Event() for _ in range(work.requests)]
        self.inbox: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.problems: list[BaseException] = []
        self.stopped = False

    def send(self, i: int) -> None:
        """Run request i to its end, alone."""
        self.times_s[i] = []
        for chunk in self.llm.stream(self.prompts[i], self.params):
            if chunk.token is not None:
                self.times_s[i].append(self.clock.now_s())
        self.answered[i].set()

    def submit(self, i: int) -> None:
        """Hand request i to the engine that `serve` runs, and return at once."""
        self.inbox.put(i)

    def ask(self, i: int) -> None:
        """Hand request i to the engine that `serve` runs, and wait for the whole answer."""
        self.inbox.put(i)
        self.answered[i].wait()
        if self.stopped:
            raise _Stopped

    def serve(self, users: Sequence[Callable[[], object]]) -> None:
        """Run the engine's steps until every user has returned and every request is answered.

        Each user runs in a thread of its own and calls `submit` or `ask`. Ctrl-C stops the run.
        """
        engine = self.llm.engine
        assert engine is not None
        threads = [threading.Thread(target=self._user, args=(user,), daemon=True) for user in users]
        for thread in threads:
            thread.start()
        try:
            while (engine.has_unfinished() or not self.inbox.empty()
                   or any(thread.is_alive() for thread in threads)):
                self._take(engine)
                for chunk in engine.step():
                    i = int(chunk.id.removeprefix("bench-"))
                    if chunk.token is not None:
                        self.times_s[i].append(self.clock.now_s())
                    if chunk.finish_reason is not None:
                        self.answered[i].set()
        except KeyboardInterrupt:
            self.stopped = True
        finally:
            self.answered_at_end = [event.is_set() for event in self.answered]
            self.stopped = self.stopped or not all(self.answered_at_end)
            for i, event in enumerate(self.answered):
                engine.abort(f"bench-{i}")
                event.set()  # nobody waits for what will not come
        if self.problems:
            raise self.problems[0]

    def _take(self, engine: Any) -> None:
        """Give the engine what was sent; an idle one waits for something."""
        while True:
            try:
                i = self.inbox.get(block=not engine.has_unfinished(), timeout=IDLE_S)
            except queue.Empty:
                return
            engine.add_request(f"bench-{i}", self.prompts[i], self.params)

    def _user(self, user: Callable[[], object]) -> None:
        try:
            user()
        except _Stopped:
            pass
        except BaseException as problem:  # for the main thread, which is waiting
            self.problems.append(problem)

    def report(self, load: str, duration_s: float, work: Workload, late_s: float = 0.0) -> Report:
        """Latencies and goodput of what was answered."""
        done = getattr(self, "answered_at_end", [event.is_set() for event in self.answered])
        found = [bench.latency(due, times) for due, times, ended
                 in zip(self.due_s, self.times_s, done, strict=True) if ended]
        tokens = sum(len(times) for times in self.times_s)
        good = bench.goodput(found, duration_s, work.ttft_slo_s, work.tpot_slo_s)
        return Report(load, duration_s, tokens, found, good, late_s, self.stopped)


def service(llm: LLM, work: Workload, min_time_s: float = 1.0) -> bench.Timing:
    """The time of one request on an idle engine."""
    client = Client(llm, work)
    return bench.measure(lambda: client.send(0), client.clock, warmup=1, min_time_s=min_time_s,
                         min_repeats=3)


def open_load(llm: LLM, work: Workload, rate_per_s: float, *, one_at_a_time: bool = False
              ) -> Report:
    """Poisson arrivals at `rate_per_s`, whether or not the engine keeps up.

    one_at_a_time: the engine gets a request only when the one before it is answered.
    """
    client = Client(llm, work)
    start_s, late_s = client.clock.now_s(), 0.0
    client.due_s = [start_s + at
                    for at in bench.poisson_arrivals(rate_per_s, work.requests, work.seed)]
    if one_at_a_time or llm.engine is None:
        bench.open_loop(client.send, client.due_s, client.clock)
    else:
        lags: list[float] = []
        client.serve([lambda: lags.extend(
            bench.open_loop(client.submit, client.due_s, bench.CpuClock()))])
        late_s = max(lags, default=0.0)  # `submit` returns at once: its latency is its lateness
    return client.report(f"open, {rate_per_s:.3g}/s", client.clock.now_s() - start_s, work, late_s)


def closed_load(llm: LLM, work: Workload, clients: int, think_s: float = 0.0) -> Report:
    """`clients` clients that each wait for their answer before they ask again."""
    client = Client(llm, work)
    clients = min(clients, work.requests)
    name = f"closed, {clients} clients"
    if llm.engine is None:
        return _closed_one_at_a_time(client, work, clients, think_s, name)
    start_s, turn = client.clock.now_s(), itertools.count()
    shares = [work.requests // clients + (k < work.requests % clients) for k in range(clients)]

    def server(sent_s: float) -> float:
        i = next(turn)
        client.due_s[i] = start_s + sent_s
        client.clock.sleep_until(start_s + sent_s)
        client.ask(i)
        return client.clock.now_s() - start_s

    # One loop a client: each blocks until its own answer, while the others go on.
    client.serve([lambda share=share: bench.closed_loop(server, 1, share, think_s)  # type: ignore[misc]
                  for share in shares])
    return client.report(name, client.clock.now_s() - start_s, work)


def _closed_one_at_a_time(client: Client, work: Workload, clients: int, think_s: float,
                          name: str) -> Report:
    """The closed loop in virtual time: service times are real, nobody waits for the thinking."""
    free_s, turn = 0.0, itertools.count()

    def server(sent_s: float) -> float:
        nonlocal free_s
        i, begin_s, real_s = next(turn), max(sent_s, free_s), client.clock.now_s()
        client.send(i)
        client.due_s[i] = sent_s
        client.times_s[i] = [begin_s + t - real_s for t in client.times_s[i]]
        free_s = begin_s + client.clock.now_s() - real_s
        return free_s

    bench.closed_loop(server, clients, work.requests, think_s)
    return client.report(name, free_s, work)


def print_bench(llm: LLM, work: Workload, rate_per_s: float | None = None,
                clients: int = 4) -> None:
    """Measure one request alone, then all at once, then both loads, and print a table.

    Ctrl-C ends the measurement: what was answered until then is printed.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    out = Console(highlight=False)
    if out.is_jupyter:
        out = Console(highlight=False, width=84)  # the width of a page
    alone = service(llm, work)
    out.print(f"One request alone ({work.prompt_tokens} prompt tokens, {work.new_tokens} new): "
              f"{alone.median_s:.3f} s, IQR {100 * alone.spread:.1f} %, n = {alone.n}.")
    table = Table(Column("load", no_wrap=True), "req/s", "tok/s", "TTFT", "TPOT", "E2E", "goodput",
                  box=box.SIMPLE, caption="TTFT, TPOT and E2E: p50 / p95 in ms",
                  caption_justify="left")
    reports = [closed_load(llm, work, work.requests)]  # all at once: the capacity
    if not reports[0].stopped:
        reports.append(open_load(llm, work, rate_per_s or 0.7 * reports[0].requests_per_s))
    if not reports[-1].stopped:
        reports.append(closed_load(llm, work, clients))
    for report in reports:
        if not report.latencies:
            continue
        spans = [" / ".join(f"{1e3 * report.percentile(name, q):,.0f}" for q in (50, 95))
                 for name in ("ttft_s", "tpot_s", "e2e_s")]
        load = "all at once" if report is reports[0] else report.load
        table.add_row(load + (" (stopped)" if report.stopped else ""),
                      f"{report.requests_per_s:.3g}", f"{report.tokens_per_s:.1f}", *spans,
                      f"{report.goodput_per_s:.3g}/s")
    out.print(table)
    count = len(reports[-1].latencies)
    out.print(f"{count} requests a load. Goodput: requests a second with TTFT ≤ "
              f"{work.ttft_slo_s:g} s and TPOT ≤ {1e3 * work.tpot_slo_s:g} ms. A p95 of "
              f"{count} requests rests on {max(1, round(0.05 * count))} of them.")
    if len(reports) > 1 and reports[1].late_s > 0.05:
        out.print(f"The load generator sent up to {1e3 * reports[1].late_s:.0f} ms late: the "
                  "machine was busy elsewhere.")
    if reports[-1].stopped:
        raise KeyboardInterrupt
