"""The real scheduler under a pretended load, in virtual time: no model, no GPU, seconds for hours.

Chapter 11 explains it and draws its figures with it. `simulate` feeds requests to
`infero.scheduler.Scheduler` when they arrive, lets a cost model say how long each planned step
takes, and notes when every token comes. What it decides is therefore what the engine decides; only
the clock is made up. Two cost models: the roofline of chapter 2 for a named model and card, and a
straight line through measured steps.

Simulating the scheduler to choose its settings: Vidur, arXiv:2405.05465.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from infero import bench, roofline
from infero.bench import Latency
from infero.errors import InferoError, ParameterError
from infero.hardware import Device
from infero.request import Plan, Request
from infero.roofline import Shape
from infero.scheduler import Scheduler, SchedulerConfig

Cost = Callable[[Plan], float]  # seconds that a planned step takes

# ---------------------------------------------------------------- what arrives


@dataclass(frozen=True)
class Job:
    """A request of the load: when it comes, how long its prompt is and its answer will be.

    The scheduler does not see `output_tokens`. It is told `max_tokens` (default: the true length)
    and, where there is one, the estimate `expected_tokens`.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    priority: int = 0
    expected_tokens: int | None = None
    max_tokens: int | None = None
    tenant: str = ""


def lognormal(draw: random.Random, mean: float, variation: float, most: int) -> int:
    """A length with this mean; `variation` is its variance over the squared mean. 1 to `most`."""
    if variation == 0:
        return min(most, max(1, round(mean)))
    sigma = math.sqrt(math.log1p(variation))
    return min(most, max(1, round(draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma))))


def poisson_jobs(rate_per_s: float, n: int, seed: int, *, prompt: float = 512,
                 output: float = 128, variation: float = 1.0, most: int = 8192) -> list[Job]:
    """n jobs of independent users: exponential gaps, log-normal lengths with the given means."""
    draw = random.Random(seed)
    return [Job(at, lognormal(draw, prompt, variation, most),
                lognormal(draw, output, variation, most))
            for at in bench.poisson_arrivals(rate_per_s, n, seed)]


def guessed(jobs: Iterable[Job], error: float, seed: int = 0) -> list[Job]:
    """The same jobs with an estimate of each length, wrong by a log-normal factor.

    `error` is the standard deviation of the factor's logarithm: 0 knows, 1 is off by e or so.
    """
    draw = random.Random(seed)
    return [replace(job, expected_tokens=max(1, round(job.output_tokens
                                                      * math.exp(draw.gauss(0, error)))))
            for job in jobs]


# ---------------------------------------------------------------- what a step costs


@dataclass(frozen=True)
class LinearCost:
    """fixed + tokens * per_token + context * per_context seconds, as fitted to measured steps."""

    fixed_s: float
    per_token_s: float
    per_context_s: float = 0.0

    def __call__(self, plan: Plan) -> float:
        context = sum(entry.start + entry.n for entry in plan.entries)
        return self.fixed_s + plan.tokens * self.per_token_s + context * self.per_context_s


@dataclass(frozen=True)
class RooflineCost:
    """The roofline's time of a mixed step: weights read once, everything else summed.

    `share` is the part of both of the device's limits that kernels reach. Copies to and from the
    host tier travel at `link_bytes_per_s` and are added (0: they cost nothing).
    """

    shape: Shape
    device: Device
    share: float = 1.0
    link_bytes_per_s: float = 0.0
    block_size: int = 16

    @cached_property
    def weights(self) -> tuple[float, float]:
        return roofline.count_weights(self.shape)

    @cached_property
    def token_bytes(self) -> float:
        return roofline.kv_bytes_per_token(self.shape)

    def __call__(self, plan: Plan) -> float:
        moved, flops = roofline.weight_bytes(self.shape), 0.0
        for entry in plan.entries:
            context = entry.start + entry.n
            moved += (entry.n + context) * self.token_bytes
            moved += roofline.activation_bytes(self.shape, 1, entry.n)
            flops += roofline.step_flops(self.shape, self.weights, 1, entry.n, context)
        time_s = roofline.roofline_time_s(
            flops, moved, self.share * self.device.peak("bf16"),
            self.share * self.device.bandwidth_bytes_per_s)
        swapped = sum(copy.kind in ("in", "out") for copy in plan.copies)
        if swapped and self.link_bytes_per_s:
            time_s += swapped * self.block_size * self.token_bytes / self.link_bytes_per_s
        return time_s


def step_s(cost: Cost, spans: Sequence[tuple[int, int]]) -> float:
    """Seconds of a step of (new tokens, context after them) spans, without any scheduler."""
    from infero.request import Scheduled

    nobody = Request("", [0], 1, 1)
    return cost(Plan(0, [Scheduled(nobody, context - new, new, True, 0, 0)
                         for new, context in spans]))


# ---------------------------------------------------------------- what came of it


@dataclass
class Served:
    """What became of one job."""

    job: Job
    token_times_s: list[float] = field(default_factory=list)
    scheduled_s: float = math.nan  # when it first left the queue
    preemptions: int = 0

    @property
    def queue_s(self) -> float:
        return self.scheduled_s - self.job.arrival_s

    @property
    def latency(self) -> Latency:
        return bench.latency(self.job.arrival_s, self.token_times_s)

    @property
    def itl_s(self) -> list[float]:
        return bench.inter_token_s(self.token_times_s)


@dataclass(frozen=True)
class Step:
    """One step of a run."""

    start_s: float
    end_s: float
    tokens: int
    requests: int
    waiting: int
    free_blocks: int
    preempted: int


@dataclass
class Run:
    """A simulated load: what each job got, in the order of the jobs, and every step."""

    served: list[Served]
    steps: list[Step]

    @property
    def duration_s(self) -> float:
        return self.steps[-1].end_s - min(one.job.arrival_s for one in self.served)

    @property
    def utilisation(self) -> float:
        """Share of the time in which a step was running."""
        return sum(step.end_s - step.start_s for step in self.steps) / self.duration_s

    @property
    def preemptions(self) -> int:
        return sum(one.preemptions for one in self.served)

    @property
    def computed_tokens(self) -> int:
        """Tokens that went through the model, those that were computed again included."""
        return sum(step.tokens for step in self.steps)

    @property
    def output_tokens_per_s(self) -> float:
        return sum(len(one.token_times_s) for one in self.served) / self.duration_s

    def latencies(self) -> list[Latency]:
        return [one.latency for one in self.served]

    def ttft_s(self, q: float) -> float:
        """The q-th percentile of the time to first token."""
        return bench.percentile([one.ttft_s for one in self.latencies()], q)

    def tpot_s(self, q: float) -> float:
        """The q-th percentile of the time per output token, over requests."""
        return bench.percentile([one.tpot_s for one in self.latencies()], q)

    def itl_s(self, q: float) -> float:
        """The q-th percentile of the gaps between tokens, over all gaps."""
        return bench.percentile([gap for one in self.served for gap in one.itl_s], q)

    def goodput(self, ttft_slo_s: float, tpot_slo_s: float) -> float:
        """Requests per second that kept both limits."""
        return bench.goodput(self.latencies(), self.duration_s, ttft_slo_s, tpot_slo_s)

    def attainment(self, ttft_slo_s: float, tpot_slo_s: float) -> float:
        """The share of the requests that kept both limits."""
        return self.goodput(ttft_slo_s, tpot_slo_s) * self.duration_s / len(self.served)


# ---------------------------------------------------------------- fairness in front of the queue


@dataclass
class FairQueue:
    """Virtual token counters (arXiv:2401.00588) in front of the scheduler.

    Each tenant's counter grows by what it is served: a prompt token counts `prompt_weight`, an
    output token `output_weight`. The next request handed over is of the waiting tenant whose
    counter is smallest. A tenant that comes back is lifted to the smallest counter of those that
    wait, so that nobody saves up service by staying away.
    """

    prompt_weight: float = 1.0
    output_weight: float = 2.0
    served: dict[str, float] = field(default_factory=dict)
    queues: dict[str, list[Request]] = field(default_factory=dict)

    def add(self, tenant: str, request: Request) -> None:
        waiting = [self.served[t] for t, queue in self.queues.items() if queue]
        if not self.queues.get(tenant):
            floor = min(waiting, default=min(self.served.values(), default=0.0))
            self.served[tenant] = max(self.served.get(tenant, 0.0), floor)
        self.queues.setdefault(tenant, []).append(request)

    def pop(self) -> Request | None:
        """The oldest request of the tenant that was served least; None if nobody waits."""
        tenants = [t for t, queue in self.queues.items() if queue]
        if not tenants:
            return None
        tenant = min(tenants, key=lambda t: self.served[t])
        request = self.queues[tenant].pop(0)
        self.served[tenant] += self.prompt_weight * request.prompt_len
        return request

    def token(self, tenant: str) -> None:
        self.served[tenant] += self.output_weight


# ---------------------------------------------------------------- the run


def simulate(jobs: Sequence[Job], config: SchedulerConfig, cost: Cost, *, num_blocks: int = 8192,
             block_size: int = 16, fair: FairQueue | None = None, stored: bool = False) -> Run:
    """Run all jobs to their end through a Scheduler and say when every token came.

    `stored`: the prompts' full blocks already lie in the host tier, as after a transfer from
    another machine, and are found there (`config.host_blocks` must hold them). Raises InferoError
    where the scheduler makes no progress, ParameterError on no jobs.
    """
    if not jobs:
        raise ParameterError("simulate was given 0 jobs; it needs at least 1.")
    scheduler = Scheduler(config, num_blocks, block_size)
    served = [Served(job) for job in jobs]
    requests = [_request(i, job) for i, job in enumerate(jobs)]
    order = sorted(range(len(jobs)), key=lambda i: jobs[i].arrival_s)
    now_s, coming, steps, outstanding = jobs[order[0]].arrival_s, 0, [], len(jobs)

    def stop(request: Request, token: int) -> str | None:
        done = len(request.tokens) - request.prompt_len >= jobs[request.state].output_tokens
        return "stop" if done else None

    while outstanding:
        while coming < len(order) and jobs[order[coming]].arrival_s <= now_s:
            i = order[coming]
            coming += 1
            if stored:
                _store(scheduler, requests[i], block_size)
            if fair is None:
                scheduler.add(requests[i])
            else:
                fair.add(jobs[i].tenant, requests[i])
        if fair is not None and scheduler.num_waiting == 0 and (
                len(scheduler.running) < config.max_num_seqs and (next_ := fair.pop()) is not None):
            scheduler.add(next_)  # one a step: the counters must see what it costs
        plan = scheduler.schedule(now_s)
        if plan is None:
            if coming == len(order):
                raise InferoError(f"{outstanding} requests are left, and nothing can be scheduled.")
            now_s = max(now_s, jobs[order[coming]].arrival_s)
            continue
        start_s, now_s = now_s, now_s + cost(plan)
        for entry in plan.entries:
            if entry.samples:
                served[entry.request.state].token_times_s.append(now_s)
                if fair is not None:
                    fair.token(jobs[entry.request.state].tenant)
        tokens = [[entry.request.state] if entry.samples else [] for entry in plan.entries]
        steps.append(Step(start_s, now_s, plan.tokens, len(plan.entries), scheduler.num_waiting,
                          len(scheduler.pool.free), len(plan.preempted)))
        scheduler.commit(plan, tokens, stop)
        outstanding -= sum(e.request.status == "finished" for e in plan.entries)
    for one, request in zip(served, requests, strict=True):
        one.preemptions = request.preemptions
        one.scheduled_s = request.scheduled_s if request.scheduled_s is not None else math.nan
    return Run(served, steps)


def _request(i: int, job: Job) -> Request:
    """Prompts of different jobs share no token, so no prefix is found by chance."""
    most = job.output_tokens if job.max_tokens is None else job.max_tokens
    return Request(str(i), [i] * job.prompt_tokens, job.prompt_tokens, most, job.arrival_s,
                   job.priority, job.expected_tokens, state=i)


def _store(scheduler: Scheduler, request: Request, block_size: int) -> None:
    from infero.cache import pool

    for digest in pool.chain(pool.root(request.salt), request.tokens, block_size):
        scheduler.host.put(digest)
