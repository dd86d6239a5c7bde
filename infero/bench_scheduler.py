"""`infero bench scheduler`: what scheduling costs, without a model.

A fake model answers every plan at once with made-up tokens, so a step is schedule and commit and
nothing else: admission, block tables, hashes of full blocks, the policy's queue. Chapter 11 asks
how that grows with the number of requests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from infero import bench
from infero.request import Plan, Request
from infero.scheduler import Scheduler, SchedulerConfig

BLOCK_SIZE = 16
PROMPT = 64  # tokens of each prompt; no two prompts are alike


@dataclass(frozen=True)
class Overhead:
    """Times of steps in which `running` requests decode one token each."""

    running: int
    schedule_s: tuple[float, ...]
    commit_s: tuple[float, ...]

    @property
    def step_s(self) -> tuple[float, ...]:
        return tuple(a + b for a, b in zip(self.schedule_s, self.commit_s, strict=True))

    @property
    def median_s(self) -> float:
        return bench.percentile(self.step_s, 50)


def fake_commit(scheduler: Scheduler, plan: Plan) -> None:
    """Commit a plan with tokens that no model has made."""
    scheduler.commit(plan, [[plan.step % 1000] if entry.samples else [] for entry in plan.entries])


def loaded(running: int, waiting: int = 0, steps: int = 400, policy: str = "fcfs") -> Scheduler:
    """A scheduler in which `running` requests decode and `waiting` more are queued."""
    longest = PROMPT + steps + 8
    blocks = running * (math.ceil(longest / BLOCK_SIZE) + 1) + 8
    scheduler = Scheduler(
        SchedulerConfig(max_num_seqs=running, max_num_batched_tokens=running * PROMPT,
                        watermark=0.0, policy=policy), blocks, BLOCK_SIZE)
    for i in range(running + waiting):
        tokens = [i % 50_000, i // 50_000, *range(PROMPT - 2)]
        scheduler.add(Request(str(i), tokens, PROMPT, steps + 8, arrival_s=1e-6 * i))
    while len(scheduler.running) < running or any(
            len(r.tokens) == r.prompt_len for r in scheduler.running):
        plan = scheduler.schedule()
        assert plan is not None
        fake_commit(scheduler, plan)
    return scheduler


def overhead(running: int, steps: int = 200, waiting: int = 0, policy: str = "fcfs") -> Overhead:
    """Time `steps` decode steps of `running` requests, each of schedule and commit."""
    scheduler = loaded(running, waiting, steps, policy)
    clock, schedule_s, commit_s = time.perf_counter, list[float](), list[float]()
    for _ in range(steps):
        start_s = clock()
        plan = scheduler.schedule()
        planned_s = clock()
        assert plan is not None and len(plan.entries) == running
        fake_commit(scheduler, plan)
        schedule_s.append(planned_s - start_s)
        commit_s.append(clock() - planned_s)
    scheduler.check_integrity()
    return Overhead(running, tuple(schedule_s), tuple(commit_s))


def add_times_s(requests: int, policy: str = "fcfs") -> tuple[float, float]:
    """Seconds to queue so many requests at a busy scheduler, and to drop them all again."""
    scheduler = loaded(1)
    start_s = time.perf_counter()
    for i in range(requests):
        scheduler.add(Request(f"q{i}", [i % 50_000, i // 50_000], 2, 8, arrival_s=1 + 1e-6 * i))
    queued_s = time.perf_counter()
    for i in range(requests):
        scheduler.abort(f"q{i}")
    done_s = time.perf_counter()
    scheduler.check_integrity()
    return queued_s - start_s, done_s - queued_s


def exponent(sizes: Sequence[float], times_s: Sequence[float]) -> float:
    """The power of the size with which the time grows: slope of the log-log least-squares line."""
    x, y = [math.log(n) for n in sizes], [math.log(t) for t in times_s]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / over
