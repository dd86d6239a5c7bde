"""The scheduler and its pool under random fire, without a model: nothing leaks, nothing is wrong.

A hypothesis state machine lets requests arrive, fork, run ahead, draft and abort in any order, on
pools so small that almost every step preempts; `scheduler_driver` audits everything after each
action. `make fuzz` runs it for longer (INFERO_FUZZ_STEPS).
"""

from __future__ import annotations

import os
import random
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from infero import scheduler as scheduler_module
from infero.cache import host as host_module
from infero.cache import pool as pool_module
from infero.request import Request
from infero.scheduler import Scheduler, SchedulerConfig
from tests.scheduler_driver import Counter, Driver

LONG = "INFERO_FUZZ_STEPS" in os.environ
STEPS = int(os.environ.get("INFERO_FUZZ_STEPS", "20000"))
FIRST = random.randrange(10**9) if LONG else 0  # another run, other lives

def config_of(chunk: int | None, **fields: Any) -> SchedulerConfig:
    """chunk 0 turns chunked prefill off."""
    return SchedulerConfig(chunked_prefill=chunk != 0, max_chunk=chunk or None, **fields)


configs = st.builds(
    config_of,
    chunk=st.sampled_from([None, None, 1, 3, 0, 0]),
    max_num_seqs=st.integers(1, 5),
    max_num_batched_tokens=st.integers(5, 14),
    policy=st.sampled_from(["fcfs", "sjf", "priority"]),
    ageing=st.sampled_from([None, 0.0, 1.0]),
    watermark=st.sampled_from([0.0, 0.01, 0.3]),
    prefix_caching=st.booleans(),
    host_blocks=st.sampled_from([0, 0, 1, 2, 5, 20]),
)
#: Prompts grow out of a few stems, so that they share beginnings of every length.
STEMS = [[0] * 12, [0, 1] * 6, [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]]


class SchedulerMachine(RuleBasedStateMachine):
    """Everything that an engine, a server and their clients can do to a scheduler."""

    @initialize(config=configs, blocks=st.integers(2, 12), size=st.integers(1, 4),
                depth=st.integers(1, 3))
    def start(self, config: SchedulerConfig, blocks: int, size: int, depth: int) -> None:
        self.driver = Driver(config, blocks, size, depth)

    @rule(stem=st.sampled_from(STEMS), length=st.integers(1, 12), tail=st.integers(0, 3),
          max_new=st.integers(1, 10), seed=st.integers(0, 3), priority=st.integers(0, 2),
          expected=st.sampled_from([None, 1, 8]), salt=st.sampled_from([b"", b"", b"tenant"]))
    def arrive(self, stem: list[int], length: int, tail: int, max_new: int, seed: int,
               priority: int, expected: int | None, salt: bytes) -> None:
        prompt = stem[:length] + [2] * tail
        room = self.driver.scheduler.capacity
        prompt = prompt[:room]
        max_new = min(max_new, room - len(prompt) + 1)
        self.driver.arrive(prompt, max_new, seed=seed, priority=priority, expected=expected,
                           salt=salt)

    @precondition(lambda self: self.driver.jobs)
    @rule(data=st.data(), max_new=st.integers(1, 8), n=st.integers(1, 3))
    def fork(self, data: st.DataObject, max_new: int, n: int) -> None:
        """n further samples of a prompt that may wait, run, or have ended in any way."""
        parent = data.draw(st.sampled_from(self.driver.jobs[-6:]))
        room = self.driver.scheduler.capacity - parent.request.prompt_len + 1
        for i in range(n):
            self.driver.arrive([], min(max_new, room), seed=10 + i, parent=parent)

    @precondition(lambda self: self.driver.jobs)
    @rule(data=st.data())
    def twin(self, data: st.DataObject) -> None:
        """The same prompt again: fully cached if the first has run."""
        other = data.draw(st.sampled_from(self.driver.jobs[-6:])).request
        self.driver.arrive(other.tokens[: other.prompt_len], other.max_new_tokens,
                           salt=other.salt)

    @precondition(lambda self: any(j.request.status == "finished" for j in self.driver.jobs))
    @rule(data=st.data(), max_new=st.integers(1, 4))
    def next_turn(self, data: st.DataObject, max_new: int) -> None:
        """A conversation goes on: a finished request's tokens become the next one's prompt."""
        ended = [j.request for j in self.driver.jobs if j.request.status == "finished"]
        other = data.draw(st.sampled_from(ended[-4:]))
        prompt = other.tokens[: self.driver.scheduler.capacity]
        room = self.driver.scheduler.capacity - len(prompt) + 1
        self.driver.arrive(prompt, min(max_new, room), salt=other.salt)

    @precondition(lambda self: self.driver.scheduler.requests)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        live = list(self.driver.scheduler.requests.values())
        self.driver.abort(data.draw(st.sampled_from(live)).state)

    @precondition(lambda self: len(self.driver.flight) < self.driver.depth)
    @rule()
    def schedule(self) -> None:
        self.driver.schedule()

    @precondition(lambda self: self.driver.flight)
    @rule()
    def commit(self) -> None:
        self.driver.commit()

    @rule(n=st.integers(1, 9))
    def steps(self, n: int) -> None:
        for _ in range(n):
            while len(self.driver.flight) >= self.driver.depth:
                self.driver.commit()
            self.driver.step()

    @precondition(lambda self: self.driver.scheduler.running)
    @rule(drafts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)),
                          min_size=1, max_size=3))
    def draft(self, drafts: list[tuple[int, int, int]]) -> None:
        """Some running requests get drafts, right ones first."""
        self.driver.propose({at: self.driver.likely(at, right, wrong)
                             for at, right, wrong in drafts})

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.driver.drain()


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=max(1, STEPS // 80), stateful_step_count=50, deadline=None,
    suppress_health_check=list(HealthCheck), derandomize=not LONG,
    # A failure is made small, which takes minutes, only where somebody asked for the long run.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if LONG else [])],
)  # fmt: skip


# ---------------------------------------------------------------- long random lives


def live(seed: int, actions: int = 120) -> Driver:
    """One random life of a scheduler, from a seed: fast, and longer than a state machine's."""
    rng = random.Random(seed)
    seqs = rng.randint(1, 8)
    config = config_of(
        rng.choice([None, None, 2, 5, 0, 0]),
        max_num_seqs=seqs, max_num_batched_tokens=rng.randint(seqs, 24),
        policy=rng.choice(["fcfs", "sjf", "priority"]), ageing=rng.choice([None, 0.0, 2.0]),
        watermark=rng.choice([0.0, 0.01, 0.25]), prefix_caching=rng.random() < 0.75,
        host_blocks=rng.choice([0, 0, 1, 3, 8, 40]))
    driver = Driver(config, rng.randint(2, 20), rng.randint(1, 5), rng.randint(1, 3))
    room = driver.scheduler.capacity
    for _ in range(actions):
        dice = rng.random()
        if dice < 0.2 and len(driver.scheduler.requests) < 12:
            prompt = rng.choice(STEMS)[: rng.randint(1, 12)]
            prompt = (prompt + [rng.randrange(3) for _ in range(rng.choice([0, 0, 2, 9]))])[:room]
            max_new = min(rng.randint(1, 12), room - len(prompt) + 1)
            first = driver.arrive(prompt, max_new, seed=rng.randrange(3), salt=rng.choice(
                [b"", b"", b"other"]), priority=rng.randrange(3), expected=rng.choice([None, 4]))
            for i in range(rng.choice([0, 0, 0, 1, 3])):
                driver.arrive([], max_new, seed=20 + i, parent=first)
        elif dice < 0.25 and driver.scheduler.requests:
            driver.abort(rng.choice(list(driver.scheduler.requests.values())).state)
        elif dice < 0.35:
            driver.propose({at: driver.likely(at, rng.randrange(4), rng.randrange(3))
                            for at in range(len(driver.scheduler.running)) if rng.random() < 0.6})
        elif dice < 0.5 and driver.flight:
            driver.commit()
        elif len(driver.flight) < driver.depth:
            driver.schedule()
        else:
            driver.commit()
    driver.drain()
    return driver


THINGS = ("preempted", "readmitted", "reused", "cow", "out", "in", "accepted", "rolled back",
          "late", "ended in flight")


@pytest.mark.parametrize("part", range(8))
def test_long_lives(part: int) -> None:
    seen = Tally[str]()
    lives = range(part, max(400, STEPS // 50), 8)
    for seed in lives:
        try:
            seen += live(FIRST + seed).seen
        except Exception as problem:
            problem.add_note(f"in live({FIRST + seed})")
            raise
    rare = [thing for thing in THINGS if seen[thing] < len(lives) / 4]
    assert not rare, f"{rare} hardly ever happened: {seen}"


def test_that_was_enough() -> None:
    """Plans made by the tests above: the number that the design asks for."""
    if Counter.steps < 1000:
        pytest.skip("run with the rest of the file")
    assert Counter.steps >= STEPS, f"only {Counter.steps} steps"


# ---------------------------------------------------------------- the fuzzer itself

Patch = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, Patch] = {}


def bug(patch: Patch) -> Patch:
    BUGS[patch.__name__] = patch
    return patch


@bug
def no_copy_on_write(m: pytest.MonkeyPatch) -> None:
    m.setattr(pool_module, "copy_on_write", lambda pool, table, index: None)


@bug
def copies_forgotten(m: pytest.MonkeyPatch) -> None:
    real = Scheduler.schedule

    def schedule(self: Scheduler, now_s: float = 0.0) -> Any:
        plan = real(self, now_s)
        if plan is not None:
            plan.copies = [c for c in plan.copies if c.kind != "cow"]
        return plan

    m.setattr(Scheduler, "schedule", schedule)


@bug
def copies_sorted_by_kind(m: pytest.MonkeyPatch) -> None:
    """Swapping in before swapping out: wrong when a block leaves and another takes its place."""
    real = Scheduler.schedule

    def schedule(self: Scheduler, now_s: float = 0.0) -> Any:
        plan = real(self, now_s)
        if plan is not None:
            plan.copies.sort(key=lambda c: c.kind)
        return plan

    m.setattr(Scheduler, "schedule", schedule)


@bug
def hashes_without_parent(m: pytest.MonkeyPatch) -> None:
    real = pool_module.chain

    def chain(parent: bytes, tokens: list[int], size: int) -> list[bytes]:
        starts = range(0, len(tokens) - size + 1, size)
        return [real(b"", tokens[at : at + size], size)[0] for at in starts]

    m.setattr(pool_module, "chain", chain)


@bug
def salt_ignored(m: pytest.MonkeyPatch) -> None:
    real = pool_module.root
    m.setattr(pool_module, "root", lambda salt=b"": real(b""))


@bug
def match_without_reference(m: pytest.MonkeyPatch) -> None:
    def match(pool: Any, hashes: list[bytes]) -> list[int]:
        found = pool_module_match(pool, hashes)
        for block in found:
            pool.ref_count[block] -= 1
        return found

    pool_module_match = pool_module.match_prefix
    m.setattr(pool_module, "match_prefix", match)


@bug
def digest_kept_when_overwritten(m: pytest.MonkeyPatch) -> None:
    def allocate(pool: Any, n: int) -> list[int]:
        if n > len(pool.free):
            raise pool_module.OutOfBlocks("")
        blocks = [pool.free.popitem(last=False)[0] for _ in range(n)]
        for block in blocks:
            pool.ref_count[block] = 1
        return blocks

    m.setattr(pool_module, "allocate", allocate)


@bug
def findable_before_computed(m: pytest.MonkeyPatch) -> None:
    """A hit on a block that is still being filled."""
    real = Scheduler._start

    def start(self: Scheduler, request: Request, room: int) -> int:
        n = real(self, request, room)
        if n:
            for block, digest in zip(request.block_table, request.hashes, strict=False):
                pool_module.register(self.pool, block, digest)
        return n

    m.setattr(Scheduler, "_start", start)


@bug
def drafts_never_rolled_back(m: pytest.MonkeyPatch) -> None:
    real = Scheduler.commit

    def commit(self: Scheduler, plan: Any, sampled: Any, *stop: Any) -> None:
        short = [(e.request, e.drafts - len(s) + 1) for e, s in zip(plan.entries, sampled,
                 strict=True) if e.drafts and e.request.status == "running"
                 and e.epoch == e.request.epoch]
        real(self, plan, sampled, *stop)
        for request, n in short:
            request.computed += n

    m.setattr(Scheduler, "commit", commit)


@bug
def late_commit_after_preemption(m: pytest.MonkeyPatch) -> None:
    real = Scheduler.commit

    def commit(self: Scheduler, plan: Any, sampled: Any, *stop: Any) -> None:
        for entry in plan.entries:
            entry.epoch = entry.request.epoch
        real(self, plan, sampled, *stop)

    m.setattr(Scheduler, "commit", commit)


@bug
def abort_keeps_the_blocks(m: pytest.MonkeyPatch) -> None:
    def leave(self: Scheduler, request: Request) -> None:
        self.running.remove(request)
        request.block_table = []

    m.setattr(Scheduler, "_leave", leave)


@bug
def the_watermark_stalls(m: pytest.MonkeyPatch) -> None:
    m.setattr(scheduler_module, "may_admit",
              lambda need, free, watermark, running: free - need >= watermark)


@bug
def the_oldest_is_preempted(m: pytest.MonkeyPatch) -> None:
    m.setattr(scheduler_module, "pick_victim", lambda running, key: running[0])


@bug
def host_forgets_which_block(m: pytest.MonkeyPatch) -> None:
    real = host_module.HostTier.put

    def put(self: Any, digest: bytes) -> int | None:
        block = real(self, digest)
        return 0 if block else block

    m.setattr(host_module.HostTier, "put", put)


@pytest.mark.parametrize("name", BUGS)
def test_the_fuzzer_notices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these bugs of small engines, planted, is found within a few hundred lives."""
    BUGS[name](monkeypatch)
    for seed in range(300):
        try:
            live(seed)
        except Exception:
            return
    pytest.fail(f"{name} survived 300 lives: the audit is blind to it")
