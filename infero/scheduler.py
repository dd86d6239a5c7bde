"""The scheduler: which requests get how many new tokens in the next forward pass.

Chapters 10 and 11 explain it. It decides anew at every step (iteration-level scheduling, Orca,
OSDI 2022), knows no model and no tensor, and has no prefill or decode mode: a request that knows
more tokens than it has computed wants the difference, be it a prompt, a chunk of one (Sarathi,
arXiv:2308.16369), one sampled token, or that token with drafts to verify.

    add ──> waiting ──schedule──> running ──commit──> finished
                ^                    |
                └──── preempted ─────┘   blocks released; what survives of them is found again

`schedule` reserves blocks and returns a Plan; `commit` accepts what the plan sampled or rolls it
back. schedule(n + 1) may be called before commit(n). Blocks become findable only at commit.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infero import policies
from infero.cache import pool as pool_module
from infero.cache.host import HostTier
from infero.cache.pool import BlockPool
from infero.errors import ConfigError, ParameterError, PromptError
from infero.request import Copy, Plan, Request, Scheduled

__all__ = ["Copy", "Plan", "Request", "Scheduled", "Scheduler", "SchedulerConfig"]

POLICIES = {"fcfs": 0.0, "sjf": 50.0, "priority": 0.1}  # and each one's default ageing


@dataclass(frozen=True)
class SchedulerConfig:
    """Limits of a step and rules of the queue.

    max_num_batched_tokens is the token budget of one step; max_chunk bounds one request's share.
    watermark: share of the pool that admission leaves free for requests that run. host_blocks:
    size of the host tier in blocks; 0 means that a preempted request recomputes what it lost.
    """

    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    chunked_prefill: bool = True
    max_chunk: int | None = None
    policy: str = "fcfs"
    ageing: float | None = None
    watermark: float = 0.01
    prefix_caching: bool = True
    host_blocks: int = 0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; known are {', '.join(POLICIES)}.")
        if self.max_num_seqs < 1 or (self.max_chunk is not None and self.max_chunk < 1):
            raise ConfigError(f"max_num_seqs is {self.max_num_seqs} and max_chunk "
                              f"{self.max_chunk}; both must be at least 1.")
        if self.max_chunk is not None and not self.chunked_prefill:
            raise ConfigError(f"max_chunk is {self.max_chunk}, but chunked_prefill is off; turn it "
                              "on or leave max_chunk away.")
        if self.has_budget() and self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, below max_num_seqs "
                f"({self.max_num_seqs}): every running request needs one token a step; raise the "
                "budget or lower the number of requests.")
        if not 0 <= self.watermark < 1 or self.host_blocks < 0:
            raise ConfigError(f"watermark is {self.watermark} (0 to below 1) and host_blocks "
                              f"{self.host_blocks} (0 or more).")
        if self.ageing is not None and not 0 <= self.ageing < math.inf:
            raise ConfigError(f"ageing is {self.ageing}; it must be 0 (off) or more.")

    def has_budget(self) -> bool:
        """Whether the token budget is known yet."""
        return True


# ---------------------------------------------------------------- pieces (Lab 11)


def share_budget(wants: Sequence[int], budget: int, max_chunk: int | None = None) -> list[int]:
    """Divide a step's token budget: how many new tokens each request gets.

    First every request that wants anything gets one token, in order, while the budget lasts: nobody
    who is generating waits for somebody's long prompt. What is left tops them up in order, each to
    what it wants and at most to `max_chunk`.
    """
    grants = [0] * len(wants)
    for most in (1, max_chunk or budget):
        for i, want in enumerate(wants):
            more = min(min(want, most) - grants[i], budget)
            if more > 0:
                grants[i] += more
                budget -= more
    return grants


def pick_victim(running: Sequence[Request], key: Callable[[Request], float]) -> Request:
    """Who gives up its blocks: the request that the policy would serve last.

    That is the largest key; of equal keys, the one admitted last (largest `admitted`).
    """
    return max(running, key=lambda request: (key(request), request.admitted))


def may_admit(need: int, free: int, watermark: int, running: int) -> bool:
    """Whether a request that needs `need` of the `free` blocks may start.

    At least `watermark` blocks must stay free for those that run and grow, unless nothing runs:
    then there is nobody to keep them for.
    """
    return free - need >= (watermark if running else 0)


# ---------------------------------------------------------------- the scheduler


class Scheduler:
    """Requests in, plans out. Call schedule, run the plan, call commit."""

    def __init__(self, config: SchedulerConfig, num_blocks: int, block_size: int) -> None:
        self.config = config
        self.pool = BlockPool(num_blocks, block_size)
        self.host = HostTier(config.host_blocks)
        self.pool.evicted = self._evicted if config.host_blocks else None
        self.watermark = math.ceil(config.watermark * num_blocks)
        self.requests: dict[str, Request] = {}
        self.running: list[Request] = []  # in the policy's order
        self.waiting: list[tuple[float, int, Request]] = []  # a heap; entries of ended ones linger
        self.copies: list[Copy] = []  # of the plan being made
        self.steps = self.arrivals = self.admissions = 0

    @property
    def num_waiting(self) -> int:
        return len(self.requests) - len(self.running)

    @property
    def capacity(self) -> int:
        """Tokens that fit into the whole pool: no request may grow longer."""
        return self.pool.num_blocks * self.pool.block_size

    def add(self, request: Request) -> None:
        """Queue a request. Raises ParameterError or PromptError where it could never run."""
        if request.id in self.requests:
            raise ParameterError(f"Request id {request.id!r} is in use; ids of requests that have "
                                 "not ended must differ.")
        if not request.tokens or request.max_new_tokens < 1:
            raise PromptError(f"Request {request.id!r} has {len(request.tokens)} prompt tokens and "
                              f"max_new_tokens {request.max_new_tokens}; both must be at least 1.")
        most = len(request.tokens) + request.max_new_tokens - 1  # the last one is never fed back
        if most > self.capacity:
            raise PromptError(
                f"Request {request.id!r} may reach {most} tokens, but the whole KV cache holds "
                f"{self.capacity} ({self.pool.num_blocks} blocks of {self.pool.block_size}); "
                "shorten the prompt, lower max_tokens, or give the cache more memory.")
        self.arrivals += 1
        request.number = self.arrivals
        self.requests[request.id] = request
        self._enqueue(request)

    def abort(self, id: str) -> bool:
        """End a request at any moment, also one in flight. False if there is none of that id."""
        request = self.requests.get(id)
        if request is not None:
            self._finish(request, "abort")
        return request is not None

    def schedule(self, now_s: float = 0.0) -> Plan | None:
        """Reserve the next step, or None where nothing can be computed before a commit."""
        plan = Plan(self.steps)
        self.copies = plan.copies
        budget = self.config.max_num_batched_tokens
        running = list(self.running)
        grants = share_budget([r.wants() for r in running], budget, self.config.max_chunk)
        for request, n in zip(running, grants, strict=True):
            while n and request.status == "running" and not self._reserve(request, n):
                self._preempt(pick_victim(self.running, lambda r: r.key), plan)
            if n and request.status == "running":
                self._append(plan, request, n)
        if not plan.preempted:
            self._admit(plan, budget - plan.tokens, now_s)
        if not plan.entries:
            return None
        self.steps += 1
        return plan

    def commit(self, plan: Plan, sampled: Sequence[Sequence[int]],
               stop: Callable[[Request, int], str | None] = lambda request, token: None) -> None:
        """Take in what a plan computed: `sampled` holds the tokens of each entry.

        A sampling entry without drafts brings one token; with drafts, those that were accepted and
        one more; others bring none. stop(request, token) is asked after each: a reason ends the
        request there and drops the rest. What an ended request computed is ignored.
        """
        for entry, tokens in zip(plan.entries, sampled, strict=True):
            request, reason = entry.request, None
            request.pending -= entry.samples
            if request.status == "finished":
                continue
            for token in tokens:
                request.tokens.append(token)
                reason = stop(request, token)
                if reason is None and (
                    len(request.tokens) - request.prompt_len >= request.max_new_tokens
                ):
                    reason = "length"
                if reason is not None:
                    break
            if entry.epoch == request.epoch:  # otherwise its blocks are gone, its tokens are not
                rejected = entry.drafts - (len(tokens) - 1) if entry.drafts else 0
                request.in_flight -= entry.n
                request.computed += entry.n - rejected
                request.verifying = False
                if entry.samples:
                    request.drafts = []  # proposed for the place that is taken now
                self._register(request)
                self._trim(request)
            if reason is not None:
                self._finish(request, reason)

    def check_integrity(self) -> None:
        """AssertionError, in words, if blocks leaked or are shared by accident."""
        pool_module.check_integrity(self.pool, (r.block_table for r in self.running))
        self.host.check_integrity()
        running = {r.id for r in self.running}
        for request in self.requests.values():
            assert (request.id in running) == (request.status == "running"), (
                f"request {request.id!r} is {request.status}, but in the wrong queue")
            held = len(request.block_table) * self.pool.block_size
            assert held >= request.computed + request.in_flight, (
                f"request {request.id!r} has {request.computed + request.in_flight} tokens in "
                f"{held} slots")

    # ------------------------------------------------------------ steps of schedule

    def _append(self, plan: Plan, request: Request, n: int) -> None:
        """Enter n reserved tokens of a request into the plan."""
        start = request.computed + request.in_flight
        drafts = max(0, start + n - len(request.tokens) - request.pending)
        samples = start + n >= len(request.tokens) + request.pending
        plan.entries.append(Scheduled(request, start, n, samples, drafts, request.epoch))
        request.in_flight += n
        request.pending += samples
        request.verifying = drafts > 0

    def _reserve(self, request: Request, n: int) -> bool:
        """Blocks for n more tokens, safe to write into; False, with nothing changed, if short."""
        pool, table = self.pool, request.block_table
        start = request.computed + request.in_flight
        first = start // pool.block_size
        shared = first < len(table) and pool.ref_count[table[first]] > 1
        more = max(0, math.ceil((start + n) / pool.block_size) - len(table))
        if more + shared > len(pool.free):
            return False
        if shared and (copied := pool_module.copy_on_write(pool, table, first)) is not None:
            self.copies.append(Copy("cow", *copied))
        table += pool_module.allocate(pool, more)
        return True

    def _admit(self, plan: Plan, budget: int, now_s: float) -> None:
        """Start waiting requests in the policy's order, until one does not fit."""
        config, postponed = self.config, []
        while self.waiting and budget > 0 and len(self.running) < config.max_num_seqs:
            entry = heapq.heappop(self.waiting)
            request = entry[2]
            if request.status != "waiting":
                continue
            if request.pending or self._awaits_parent(request):
                postponed.append(entry)
                continue
            room = budget if config.chunked_prefill or plan.admitted else self.capacity
            n = self._start(request, room)
            if n == 0:
                postponed.append(entry)
                break  # nobody may overtake, or a long prompt might wait for ever
            if request.scheduled_s is None:
                request.scheduled_s, request.cached_tokens = now_s, request.computed
            self.admissions += 1
            request.admitted, request.status = self.admissions, "running"
            bisect.insort(self.running, request, key=lambda r: (r.key, r.admitted))
            self._append(plan, request, n)
            plan.admitted.append(request.id)
            budget -= n
        for entry in postponed:
            heapq.heappush(self.waiting, entry)

    def _start(self, request: Request, room: int) -> int:
        """Give a waiting request the blocks of all its tokens: its first grant, 0 if none fits."""
        pool, size = self.pool, self.pool.block_size
        self._extend_hashes(request)
        reusable = request.hashes[: (len(request.tokens) - 1) // size]  # one token must be left
        table, computed = self._fork(request)
        if not table:
            table = pool_module.match_prefix(pool, reusable)
            computed = len(table) * size
        whole = math.ceil(len(request.tokens) / size)
        copies = computed < len(table) * size  # a shared block that will be written into
        fits = may_admit(whole - len(table) + copies, len(pool.free), self.watermark,
                         len(self.running))
        chunk = len(request.tokens) - computed
        if not fits or (not self.config.chunked_prefill and chunk > room):
            pool_module.release(pool, table)
            return 0
        found = len(table)
        request.block_table = table + pool_module.allocate(pool, whole - found)
        if not copies:
            for host, digest in zip(self.host.match(reusable[found:]), reusable[found:],
                                    strict=False):
                self.copies.append(Copy("in", host, request.block_table[found]))
                pool_module.register(pool, request.block_table[found], digest)
                found, computed = found + 1, computed + size
        request.computed, request.registered = computed, computed // size
        n = share_budget([len(request.tokens) - computed], room, self.config.max_chunk)[0]
        self._reserve(request, n)  # copies a shared block; the others are there
        return n

    def _awaits_parent(self, request: Request) -> bool:
        """Whether a further sample of a prompt should wait until the first has computed it."""
        parent = request.parent
        return (parent is not None and parent.status != "finished" and request.epoch == 0
                and len(parent.tokens) == parent.prompt_len)

    def _fork(self, request: Request) -> tuple[list[int], int]:
        """The parent's blocks for all of the prompt but its last token, with a reference each."""
        parent, reach = request.parent, request.prompt_len - 1
        if (parent is None or parent.status != "running" or request.epoch or reach == 0
                or parent.computed < reach):
            return [], 0
        table = parent.block_table[: math.ceil(reach / self.pool.block_size)]
        for block in table:
            self.pool.ref_count[block] += 1
        return table, reach

    def _preempt(self, victim: Request, plan: Plan) -> None:
        """Back to the queue; its full blocks stay findable until they are taken."""
        self._leave(victim)
        victim.computed = victim.in_flight = victim.registered = 0
        victim.drafts, victim.verifying, victim.status = [], False, "waiting"
        victim.epoch += 1
        victim.preemptions += 1
        plan.preempted.append(victim.id)
        self._enqueue(victim)

    # ------------------------------------------------------------ shared by both

    def _enqueue(self, request: Request) -> None:
        policy, ageing = self.config.policy, self.config.ageing
        rate = POLICIES[policy] if ageing is None else ageing
        if policy == "sjf":
            request.key = policies.shortest_first(request, rate)
        elif policy == "priority":
            request.key = policies.priority_first(request, rate)
        else:
            request.key = policies.first_come(request)
        heapq.heappush(self.waiting, (request.key, request.number, request))

    def _leave(self, request: Request) -> None:
        self.running.remove(request)
        pool_module.release(self.pool, request.block_table)
        request.block_table = []

    def _finish(self, request: Request, reason: str) -> None:
        if request.status == "running":
            self._leave(request)
        request.status, request.finish_reason = "finished", reason
        del self.requests[request.id]

    def _extend_hashes(self, request: Request) -> None:
        if not self.config.prefix_caching and not self.config.host_blocks:
            return
        size, done = self.pool.block_size, len(request.hashes) * self.pool.block_size
        if len(request.tokens) - done < size:
            return
        # Without prefix caching a request may still find its own blocks again, in the host tier.
        alone = b"" if self.config.prefix_caching else f"\0{request.number}".encode()
        parent = request.hashes[-1] if request.hashes else pool_module.root(request.salt + alone)
        request.hashes += pool_module.chain(parent, request.tokens[done:], size)

    def _register(self, request: Request) -> None:
        """Make the blocks findable that are full, committed, and of tokens that are kept."""
        self._extend_hashes(request)
        full = min(request.computed // self.pool.block_size, len(request.hashes))
        for i in range(request.registered, full):
            pool_module.register(self.pool, request.block_table[i], request.hashes[i])
        request.registered = max(request.registered, full)

    def _trim(self, request: Request) -> None:
        """Give back blocks that only rejected drafts had needed."""
        known = max(len(request.tokens), request.computed + request.in_flight)
        keep = math.ceil(known / self.pool.block_size)
        if keep < len(request.block_table):
            pool_module.release(self.pool, request.block_table[keep:])
            del request.block_table[keep:]

    def _evicted(self, block: int, digest: bytes) -> None:
        """The pool forgets a prefix: keep it in the host tier."""
        target = self.host.put(digest)
        if target is not None:
            self.copies.append(Copy("out", block, target))
