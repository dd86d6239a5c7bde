"""A fake model behind the real scheduler, which notices any mistake that would change a token.

Its "keys and values" are numbers: slot s holds a hash of every token up to and including the one
that was written there, exactly what real keys and values depend on. Each plan's copies and spans
are carried out on that memory as soon as they are scheduled, as a GPU would, and the results handed
back at commit, perhaps after the next plan was made. Before a span is accepted, every slot of its
context must hold the hash of the request's own tokens: a stale prefix hit, a missing copy-on-write,
a lost swap, a wrong rollback all show at once. After every action the books are audited.
"""

from __future__ import annotations

import zlib
from collections import Counter as Tally
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from infero.cache import pool as pool_module
from infero.request import Plan, Request, Scheduled
from infero.scheduler import Scheduler, SchedulerConfig

STOP = 9  # the token that ends a request
VOCAB = 3  # ordinary tokens are 0, 1, 2: prompts collide often


class Counter:
    """How many plans were made by all drivers of this process."""

    steps = 0


@dataclass(eq=False)
class Job:
    """A request with everything it should turn into.

    script: the prompt with all output it could have; after[p]: the hash of tokens 0 to p.
    wanted: its tokens when it has ended, and why it ends.
    """

    request: Request
    root: int
    script: list[int]
    after: list[int]
    wanted: list[int]
    reason: str
    aborted: bool = False
    hashes_seen: int = 0


@dataclass
class Driver:
    """The scheduler, the fake device, and the plans in flight (at most `depth`)."""

    config: SchedulerConfig
    num_blocks: int
    block_size: int
    depth: int = 1
    scheduler: Scheduler = field(init=False)
    jobs: list[Job] = field(default_factory=list)
    flight: deque[tuple[Plan, list[list[int]]]] = field(default_factory=deque)
    now_s: float = 0.0
    seen: Tally[str] = field(default_factory=Tally)  # how often the interesting things happened

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.config, self.num_blocks, self.block_size)
        self.memory: list[int | None] = [None] * (self.num_blocks * self.block_size)
        self.host_memory: list[int | None] = [None] * (self.config.host_blocks * self.block_size)
        self.meaning: dict[bytes, list[int]] = {}  # what a digest's block must hold

    # ------------------------------------------------------------ what may happen

    def arrive(self, prompt: Sequence[int], max_new: int, *, seed: int = 0, priority: int = 0,
               expected: int | None = None, salt: bytes = b"", parent: Job | None = None,
               id: str | None = None, may_stop: bool = True) -> Job:
        """A request joins the queue; a fork takes its prompt and salt from `parent`."""
        if parent is not None:
            prompt, salt = parent.script[: parent.request.prompt_len], parent.request.salt
        number = len(self.jobs)
        request = Request(
            id=id or f"r{number}", tokens=list(prompt), prompt_len=len(prompt),
            max_new_tokens=max_new, arrival_s=self.now_s, priority=priority,
            expected_tokens=expected, salt=salt, parent=parent.request if parent else None)
        root = zlib.crc32(salt)
        if parent is not None:
            root = parent.root
        elif not self.config.prefix_caching:
            root += 7919 * (number + 1)  # then nobody may use another request's blocks
        script, after, state = list(prompt), list[int](), root
        for token in script:
            state = hash((state, token))
            after.append(state)
        wanted = None
        for _ in range(max_new + 1):
            draw = (state // 7 + 31 * seed) % 19
            token = STOP if draw == 0 and may_stop else draw % VOCAB
            script.append(token)
            state = hash((state, token))
            after.append(state)
            if token == STOP and wanted is None:
                wanted = list(script)
        whole = script[: len(prompt) + max_new]
        reason = "length"
        if wanted is not None and len(wanted) <= len(whole):
            whole, reason = wanted, "stop"
        job = Job(request, root, script, after, whole, reason)
        request.state = job
        self.scheduler.add(request)
        self.jobs.append(job)
        self.audit()
        return job

    def abort(self, job: Job) -> None:
        was_live = job.request.status != "finished"
        assert self.scheduler.abort(job.request.id) == was_live
        job.aborted |= was_live
        assert job.request.status == "finished" and not job.request.block_table
        self.audit()

    def propose(self, drafts: dict[int, list[int]]) -> None:
        """Give running requests tokens to verify; a number of the running order each."""
        for at, tokens in drafts.items():
            if at < len(self.scheduler.running):
                request = self.scheduler.running[at]
                if not request.pending and not request.verifying:
                    request.drafts = list(tokens)

    def likely(self, at: int, right: int, wrong: int) -> list[int]:
        """Drafts of running request `at`: `right` good ones, then `wrong` bad ones."""
        if at >= len(self.scheduler.running):
            return []
        job, known = self.scheduler.running[at].state, len(self.scheduler.running[at].tokens)
        good = job.script[known : known + right]
        return good + [(job.script[known + right] + 1) % VOCAB] * wrong if len(good) == right \
            and known + right < len(job.script) else good

    def schedule(self) -> Plan | None:
        """Make the next plan and carry it out on the fake device."""
        assert len(self.flight) < self.depth
        self.now_s += 1.0
        Counter.steps += 1
        before = {r: r.computed + r.in_flight for r in self.scheduler.running}
        eager = {r for r in self.scheduler.running if r.wants() > 0}
        waiting = self.waiting()
        plan = self.scheduler.schedule(self.now_s)
        if plan is None:
            assert self.flight or not self.scheduler.requests, (
                f"nothing is in flight, yet {len(self.scheduler.requests)} requests make no step")
        else:
            self.check_plan(plan, before, eager, waiting)
            self.flight.append((plan, self.execute(plan)))
        self.audit()
        return plan

    def commit(self) -> None:
        """The oldest plan's results arrive."""
        plan, sampled = self.flight.popleft()
        self.seen["late"] += sum(e.epoch != e.request.epoch for e in plan.entries)
        self.seen["ended in flight"] += sum(e.request.status == "finished" for e in plan.entries)
        self.scheduler.commit(
            plan, sampled, lambda request, token: "stop" if token == STOP else None)
        self.audit()

    def step(self) -> None:
        """Schedule, running ahead as far as `depth` allows, and commit what must be."""
        self.schedule()
        if self.flight and (len(self.flight) == self.depth or not self.scheduler.running):
            self.commit()

    def drain(self) -> None:
        """Everything ends, in a bounded number of steps, and gives all its blocks back."""
        work = sum(len(job.script) for job in self.jobs if job.request.status != "finished")
        for _ in range(40 * work + 100):
            if not self.scheduler.requests and not self.flight:
                break
            if len(self.flight) < self.depth and self.schedule() is not None:
                continue
            if self.flight:
                self.commit()
        assert not self.scheduler.requests, (
            f"after {40 * work + 100} steps {sorted(self.scheduler.requests)} have not ended")
        while self.flight:
            self.commit()
        assert len(self.scheduler.pool.free) == self.num_blocks
        for job in self.jobs:
            self.check_end(job)

    def waiting(self) -> list[Request]:
        return [r for r in self.scheduler.requests.values() if r.status == "waiting"]

    # ------------------------------------------------------------ the fake device

    def execute(self, plan: Plan) -> list[list[int]]:
        """Copies in order, then all writes, then all reads, as a forward pass does each layer."""
        size = self.block_size
        self.seen["preempted"] += len(plan.preempted)
        self.seen["computed"] += plan.tokens
        for copy in plan.copies:
            self.seen[copy.kind] += 1
            source = self.host_memory if copy.kind == "in" else self.memory
            target = self.host_memory if copy.kind == "out" else self.memory
            assert copy.kind in ("cow", "in", "out")
            content = source[copy.source * size : (copy.source + 1) * size]
            assert len(content) == size
            target[copy.target * size : (copy.target + 1) * size] = content
        writes: dict[int, int] = {}
        for entry in plan.entries:
            job, at = entry.request.state, entry.start
            state = job.after[at - 1] if at else job.root
            tokens = self.fed(entry)
            slots = pool_module.slots_of(entry.request.block_table, at, entry.n, size)
            for slot, token in zip(slots, tokens, strict=True):
                state = hash((state, token))
                assert slot not in writes, f"step {plan.step} writes slot {slot} twice"
                writes[slot] = state
        for slot, state in writes.items():
            self.memory[slot] = state
        return [self.sample(plan, entry) for entry in plan.entries]

    def fed(self, entry: Scheduled) -> list[int]:
        """The tokens that a span computes: known ones, perhaps sampled a step ago, and drafts."""
        known = entry.start + entry.n - entry.drafts
        drafts = entry.request.drafts[: entry.drafts]
        assert len(drafts) == entry.drafts
        return entry.request.state.script[entry.start : known] + drafts

    def sample(self, plan: Plan, entry: Scheduled) -> list[int]:
        request, job = entry.request, entry.request.state
        for p, slot in enumerate(
            pool_module.slots_of(request.block_table, 0, entry.start, self.block_size)
        ):
            assert self.memory[slot] == job.after[p], (
                f"step {plan.step}: request {request.id} reads position {p} in slot {slot}, "
                "which does not hold its own tokens")
        if not entry.samples:
            return []
        known = entry.start + entry.n - entry.drafts
        fed = self.fed(entry)[entry.n - entry.drafts :]
        accepted = 0
        while accepted < len(fed) and fed[accepted] == job.script[known + accepted]:
            accepted += 1
        self.seen["accepted"] += accepted
        self.seen["rolled back"] += len(fed) - accepted
        return job.script[known : known + accepted + 1]

    # ------------------------------------------------------------ what must hold

    def check_plan(self, plan: Plan, before: dict[Request, int], eager: set[Request],
                   waiting: list[Request]) -> None:
        s, config = self.scheduler, self.config
        requests = [entry.request for entry in plan.entries]
        assert plan.entries and len(set(requests)) == len(requests), "a request is in it twice"
        tokens = sum(entry.n for entry in plan.entries)
        if plan.admitted and not config.chunked_prefill:  # one whole prompt may exceed the budget
            tokens -= next(e.n for e in plan.entries if e.request.id == plan.admitted[0])
        assert tokens <= config.max_num_batched_tokens, "over the token budget"
        assert plan.tokens == sum(entry.n for entry in plan.entries)
        assert len(s.running) <= config.max_num_seqs
        assert {r.id for r in requests} >= set(plan.admitted)
        assert not set(plan.preempted) & {r.id for r in requests}, "preempted, and yet scheduled"
        for entry in plan.entries:
            request, end = entry.request, entry.start + entry.n
            assert entry.n >= 1 and request.status == "running"
            assert entry.start == before.get(request, entry.start)
            assert entry.n <= (config.max_chunk or entry.n)
            known = len(request.tokens) + request.pending - entry.samples
            assert entry.samples == (end >= known) and entry.drafts == max(0, end - known)
            assert request.computed + request.in_flight == end
            if request not in before:
                assert request.id in plan.admitted and request in waiting
                assert entry.start < len(request.tokens), "nothing is left to compute"
                assert config.chunked_prefill or entry.samples, "a prompt was cut in pieces"
                self.seen["reused"] += entry.start
                self.seen["readmitted"] += request.preemptions > 0
                if not request.preemptions:
                    assert request.cached_tokens == entry.start <= request.prompt_len - 1
            for p in {p // self.block_size for p in range(entry.start, end)}:
                block = request.block_table[p]
                assert s.pool.ref_count[block] == 1, f"{request.id} writes into a shared block"
                assert s.pool.hash_of[block] is None, f"{request.id} overwrites a cached prefix"
        idle = eager - set(requests) - {r for r in eager if r.id in plan.preempted}
        assert not idle, f"{[r.id for r in idle]} wanted a token and got none"
        admitted = [r for r in waiting if r.status == "running"]
        for passed_over in waiting:
            parent = passed_over.parent
            excused = passed_over.pending or (parent is not None and parent.status != "finished")
            if passed_over.status == "waiting" and not excused:
                for first in admitted:
                    assert first.key <= passed_over.key, f"{first.id} overtook {passed_over.id}"

    def audit(self) -> None:
        """The books balance, nothing is shared by accident, and digests tell the truth."""
        s, size = self.scheduler, self.block_size
        s.check_integrity()
        pool = s.pool
        referenced = sum(count > 0 for count in pool.ref_count)
        assert len(pool.free) + referenced == self.num_blocks
        owners: dict[int, list[tuple[int, Request]]] = {}
        for request in s.running:
            assert len(request.block_table) == len(set(request.block_table)), "a block twice"
            for i, block in enumerate(request.block_table):
                owners.setdefault(block, []).append((i, request))
        for block in range(self.num_blocks):
            assert pool.ref_count[block] == len(owners.get(block, [])), f"block {block} leaked"
        for block, several in owners.items():
            if len(several) > 1:
                (i, first), *others = several
                for j, other in others:
                    end = min(first.computed, other.computed, (i + 1) * size)
                    assert i == j and end > i * size, f"block {block} is shared by accident"
                    assert first.state.after[end - 1] == other.state.after[end - 1], (
                        f"block {block} is shared by {first.id} and {other.id}, which differ")
        for job in self.jobs:
            request = job.request
            assert request.tokens == job.script[: len(request.tokens)]
            for i in range(job.hashes_seen, len(request.hashes)):
                content = job.after[i * size : (i + 1) * size]
                assert self.meaning.setdefault(request.hashes[i], content) == content, (
                    "one digest stands for two prefixes")
            job.hashes_seen = len(request.hashes)
            if request.status == "finished":
                self.check_end(job)
        for block, digest in enumerate(pool.hash_of):
            if digest is not None:
                held = self.memory[block * size : (block + 1) * size]
                assert held == self.meaning[digest], f"block {block} does not hold its prefix"
        for digest, block in s.host.block_of.items():
            held = self.host_memory[block * size : (block + 1) * size]
            assert held == self.meaning[digest], f"host block {block} does not hold its prefix"

    def check_end(self, job: Job) -> None:
        request = job.request
        assert request.status == "finished" and not request.block_table
        if job.aborted:
            assert request.finish_reason == "abort"
        else:
            assert request.tokens == job.wanted and request.finish_reason == job.reason
