"""Prefill and decode on different GPUs, as a simulation in virtual time.

Chapter 11 explains it. `colocated` spreads a load over engines that do both, with chunked prefill.
`disaggregated` gives every prompt to an engine of the prefill pool, sends its keys and values over
a link, and goes on in the decode pool. Every GPU runs the real scheduler (`infero.simulate`), so
the two are compared on the same number of GPUs under the same rules. What arrives over the link
lies in the decode engine's host tier, under the hashes that a swapped-out prefix would have, and is
found there on admission; the last, partly filled block is computed again.

Requests are dealt out in turn; a decode pool that is full does not hold back the prefill pool.

Sources: Splitwise, arXiv:2311.18677; DistServe, arXiv:2401.09670; Mooncake, arXiv:2407.00079.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from infero.errors import ParameterError
from infero.scheduler import SchedulerConfig
from infero.simulate import Cost, Job, Run, Served, simulate

STORED_BLOCKS = 1 << 30  # the memory that transfers land in is not what is studied here


@dataclass(frozen=True)
class Link:
    """The way from a prefill GPU to the decode pool; one transfer at a time for each GPU."""

    bytes_per_s: float
    token_bytes: float  # keys and values of one token over all layers
    latency_s: float = 0.0

    def time_s(self, tokens: int) -> float:
        return self.latency_s + tokens * self.token_bytes / self.bytes_per_s


@dataclass
class Fleet(Run):
    """The whole load's outcome, and the run of every GPU by pool.

    transfer_s: seconds from each job's first token until its cache had arrived (waiting for the
    link included); empty where nothing is sent.
    """

    pools: dict[str, list[Run]]
    transfer_s: list[float]

    def busy(self, pool: str) -> float:
        """Mean share of the whole run in which a GPU of this pool worked."""
        runs, whole_s = self.pools[pool], self.duration_s
        return sum(step.end_s - step.start_s for run in runs for step in run.steps) / (
            whole_s * len(runs))


def dealt(jobs: Sequence[Job], gpus: int) -> list[list[int]]:
    """Indices of the jobs of each GPU: in turn, by arrival."""
    if gpus < 1:
        raise ParameterError(f"A pool has {gpus} GPUs; it needs at least 1.")
    order = sorted(range(len(jobs)), key=lambda i: jobs[i].arrival_s)
    return [order[g::gpus] for g in range(gpus)]


def colocated(jobs: Sequence[Job], gpus: int, config: SchedulerConfig, cost: Cost, *,
              num_blocks: int = 8192, block_size: int = 16) -> Fleet:
    """`gpus` engines that do prefill and decode, each with its share of the jobs."""
    served: list[Served | None] = [None] * len(jobs)
    runs = []
    for mine in dealt(jobs, gpus):
        if not mine:
            continue
        run = simulate([jobs[i] for i in mine], config, cost, num_blocks=num_blocks,
                       block_size=block_size)
        for i, one in zip(mine, run.served, strict=True):
            served[i] = one
        runs.append(run)
    return _fleet(served, {"both": runs}, [])


def disaggregated(jobs: Sequence[Job], prefill_gpus: int, decode_gpus: int,
                  prefill: SchedulerConfig, decode: SchedulerConfig, cost: Cost, link: Link, *,
                  num_blocks: int = 8192, block_size: int = 16) -> Fleet:
    """Prompts on one pool, everything after the first token on the other."""
    decode = replace(decode, prefix_caching=True, host_blocks=STORED_BLOCKS)
    served: list[Served | None] = [None] * len(jobs)
    arrived_s, prefill_runs = [0.0] * len(jobs), []
    for mine in dealt(jobs, prefill_gpus):
        if not mine:
            continue
        run = simulate([replace(jobs[i], output_tokens=1, max_tokens=1) for i in mine], prefill,
                       cost, num_blocks=num_blocks, block_size=block_size)
        free_s = 0.0
        for k in sorted(range(len(mine)), key=lambda k: run.served[k].token_times_s[0]):
            i, one = mine[k], run.served[k]
            served[i] = Served(jobs[i], list(one.token_times_s), one.scheduled_s, one.preemptions)
            free_s = max(free_s, one.token_times_s[0]) + link.time_s(jobs[i].prompt_tokens)
            arrived_s[i] = free_s
        prefill_runs.append(run)
    going_on = [i for i, job in enumerate(jobs) if job.output_tokens > 1]
    rest = [replace(jobs[i], arrival_s=arrived_s[i], prompt_tokens=jobs[i].prompt_tokens + 1,
                    output_tokens=jobs[i].output_tokens - 1, max_tokens=None) for i in going_on]
    decode_runs = []
    for mine in dealt(rest, decode_gpus):
        if not mine:
            continue
        run = simulate([rest[k] for k in mine], decode, cost, num_blocks=num_blocks,
                       block_size=block_size, stored=True)
        for k, one in zip(mine, run.served, strict=True):
            whole = served[going_on[k]]
            assert whole is not None
            whole.token_times_s += one.token_times_s
            whole.preemptions += one.preemptions
        decode_runs.append(run)
    waits = [arrived_s[i] - one.token_times_s[0] for i, one in enumerate(served) if one is not None]
    return _fleet(served, {"prefill": prefill_runs, "decode": decode_runs}, waits)


def _fleet(served: Sequence[Served | None], pools: dict[str, list[Run]],
           transfer_s: list[float]) -> Fleet:
    steps = sorted((step for runs in pools.values() for run in runs for step in run.steps),
                   key=lambda step: step.end_s)
    return Fleet([one for one in served if one is not None], steps, pools, transfer_s)
