"""`infero bench`: the engine under an open and a closed load, with `bench.py`'s functions.

Chapter 3 says how to read the table. The engine serves one request at a time for now, so requests
queue in front of it: under the open loop in real time, under the closed loop in virtual time, where
every service time is a real one but nobody has to wait for the clients to think.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infero import bench
from infero.errors import ParameterError

if TYPE_CHECKING:
    from infero.llm import LLM


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
    """One run under one load."""

    load: str
    duration_s: float
    tokens: int
    latencies: Sequence[bench.Latency]
    goodput_per_s: float

    @property
    def requests_per_s(self) -> float:
        return len(self.latencies) / self.duration_s

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.duration_s

    def percentile(self, name: str, q: float) -> float:
        """Percentile of "ttft_s", "tpot_s" or "e2e_s"."""
        return bench.percentile([getattr(one, name) for one in self.latencies], q)


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

    def send(self, i: int) -> None:
        """Run request i to its end."""
        self.times_s[i] = []
        for chunk in self.llm.stream(self.prompts[i], self.params):
            if chunk.token is not None:
                self.times_s[i].append(self.clock.now_s())


def service(llm: LLM, work: Workload, min_time_s: float = 1.0) -> bench.Timing:
    """The time of one request on an idle engine."""
    client = Client(llm, work)
    return bench.measure(lambda: client.send(0), client.clock, warmup=1, min_time_s=min_time_s,
                         min_repeats=3)


def open_load(llm: LLM, work: Workload, rate_per_s: float) -> Report:
    """Poisson arrivals at `rate_per_s`, whether or not the engine keeps up."""
    client = Client(llm, work)
    start_s = client.clock.now_s()
    due_s = [start_s + at for at in bench.poisson_arrivals(rate_per_s, work.requests, work.seed)]
    bench.open_loop(client.send, due_s, client.clock)
    done = [bench.latency(due, t) for due, t in zip(due_s, client.times_s, strict=True)]
    return _report(f"open, {rate_per_s:.3g}/s", client, done,
                   client.clock.now_s() - start_s, work)


def closed_load(llm: LLM, work: Workload, clients: int, think_s: float = 0.0) -> Report:
    """`clients` clients that each wait for their answer before they ask again."""
    client, free_s = Client(llm, work), 0.0
    done: list[bench.Latency] = []

    def server(sent_s: float) -> float:
        nonlocal free_s
        begin_s, real_s = max(sent_s, free_s), client.clock.now_s()
        client.send(len(done))
        times_s = [begin_s + t - real_s for t in client.times_s[len(done)]]
        done.append(bench.latency(sent_s, times_s))
        free_s = begin_s + client.clock.now_s() - real_s
        return free_s

    bench.closed_loop(server, clients, work.requests, think_s)
    return _report(f"closed, {clients} clients", client, done, free_s, work)


def _report(load: str, client: Client, done: list[bench.Latency], duration_s: float,
            work: Workload) -> Report:
    good = bench.goodput(done, duration_s, work.ttft_slo_s, work.tpot_slo_s)
    return Report(load, duration_s, sum(len(t) for t in client.times_s), done, good)


def print_bench(llm: LLM, work: Workload, rate_per_s: float | None = None,
                clients: int = 4) -> None:
    """Measure one request alone, then under both loads, and print a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False)
    if out.is_jupyter:
        out = Console(highlight=False, width=84)  # the width of a page
    if out.is_jupyter:
        out = Console(highlight=False, width=84)  # the width of a page
    alone = service(llm, work)
    rate = rate_per_s or 0.7 / alone.median_s
    out.print(f"One request alone ({work.prompt_tokens} prompt tokens, {work.new_tokens} new): "
              f"{alone.median_s:.3f} s, IQR {100 * alone.spread:.1f} %, n = {alone.n}; the engine "
              f"serves one at a time, so at most {1 / alone.median_s:.3g} requests/s.")
    table = Table("load", "req/s", "tok/s", "TTFT", "TPOT", "E2E", "goodput", box=box.SIMPLE,
                  caption="TTFT, TPOT and E2E: p50 / p95 in ms", caption_justify="left")
    for report in (open_load(llm, work, rate), closed_load(llm, work, clients)):
        spans = [" / ".join(f"{1e3 * report.percentile(name, q):,.0f}" for q in (50, 95))
                 for name in ("ttft_s", "tpot_s", "e2e_s")]
        table.add_row(report.load, f"{report.requests_per_s:.3g}", f"{report.tokens_per_s:.1f}",
                      *spans, f"{report.goodput_per_s:.3g}/s")
    out.print(table)
    out.print(f"{work.requests} requests a load. Goodput: requests a second with TTFT ≤ "
              f"{work.ttft_slo_s:g} s and TPOT ≤ {1e3 * work.tpot_slo_s:g} ms. A p95 of "
              f"{work.requests} requests rests on {max(1, round(0.05 * work.requests))} of them.")
