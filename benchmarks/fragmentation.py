"""How much of the KV cache holds tokens, by the way its memory is given out: a simulation.

    python -m benchmarks.fragmentation [--smoke] [--out DIR]

Nothing is timed and no model runs: requests of random lengths pass through a cache of a fixed
number of slots, one token a step each, under four allocators. The same seed gives the same numbers
on every machine. The paged allocator is `infero.cache.pool`. Chapter 8 draws the result, after
figure 2 of Kwon et al., arXiv:2309.06180.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from infero import results
from infero.cache import pool as blocks
from infero.cache.pool import BlockPool

SLOTS = 65_536  # tokens: 8.6 GB for a model of Llama-3-8B's shape
LONGEST = 4096  # tokens that a request may have at most
BLOCK = 16
WATERMARK = 0.01  # share of the blocks that admission leaves free
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(eq=False)
class Job:
    """One request: the lengths that it will have, the bound its client asked for, what it holds."""

    prompt: int
    output: int
    asked: int
    stored: int = 0
    table: list[int] = field(default_factory=list)
    place: tuple[int, int] = (0, 0)  # first slot and number of slots, where they are contiguous

    @property
    def final(self) -> int:
        return self.prompt + self.output


def jobs(seed: int) -> Iterator[Job]:
    """Requests without end: log-normal lengths, and a client who asks for 1 to 4 times too much."""
    draw = random.Random(seed)
    while True:
        prompt = min(2048, max(1, round(draw.lognormvariate(math.log(200), 1.0))))
        output = min(LONGEST - prompt, 2048, max(1, round(draw.lognormvariate(math.log(180), 0.9))))
        power = 2 ** math.ceil(math.log2(max(output, 16)))
        yield Job(prompt, output, min(LONGEST - prompt, power * draw.choice((1, 2, 4))))


@dataclass
class Tally:
    """Sums over steps of slots in each state, and counts."""

    stored: int = 0
    reserved: int = 0  # will hold a token of this request later
    internal: int = 0  # given to a request and never used by it
    free: int = 0
    requests: int = 0
    finished: int = 0
    preempted: int = 0
    steps: int = 0
    blocked: int = 0  # steps in which the free slots would have been enough for the next in line

    def share(self, what: str) -> float:
        return float(getattr(self, what)) / (self.steps * SLOTS)


# ---------------------------------------------------------------- contiguous


def first_fit(running: Sequence[Job], size: int) -> int | None:
    """The first slot of the first hole of `size` slots between the running requests."""
    at = 0
    for start, length in sorted(job.place for job in running):
        if start - at >= size:
            return at
        at = start + length
    return at if SLOTS - at >= size else None


def contiguous(rule: str, steps: int, warmup: int, seed: int) -> Tally:
    """Each request is given all it may need, in one piece, when it is admitted.

    `rule` says how much: "longest" that any request may have, "asked" for by its client, or
    "oracle": exactly what it will turn out to need.
    """
    source, running, tally = jobs(seed), list[Job](), Tally()
    following = next(source)
    for step in range(steps):
        while True:
            size = {"longest": LONGEST, "asked": following.prompt + following.asked,
                    "oracle": following.final}[rule]
            start = first_fit(running, size)
            if start is None:
                break
            following.place, following.stored = (start, size), following.prompt
            running.append(following)
            following = next(source)
        if step >= warmup:
            held = sum(job.place[1] for job in running)
            tally.steps += 1
            tally.requests += len(running)
            tally.stored += sum(job.stored for job in running)
            tally.reserved += sum(job.final - job.stored for job in running)
            tally.internal += sum(job.place[1] - job.final for job in running)
            tally.free += SLOTS - held
            tally.blocked += SLOTS - held >= size
            tally.finished += sum(job.stored == job.final for job in running)
        running = [job for job in running if job.stored < job.final]
        for job in running:
            job.stored += 1
    return tally


# ---------------------------------------------------------------- paged


def paged(steps: int, warmup: int, seed: int, block_size: int = BLOCK) -> Tally:
    """Each request is given a block when it has a token for it; the latest gives way when none is.

    A request that gave way returns to the head of the queue and recomputes what it had.
    """
    pool = BlockPool(SLOTS // block_size, block_size)
    spare = math.ceil(WATERMARK * pool.num_blocks)
    source, running, waiting, tally = jobs(seed), list[Job](), deque[Job](), Tally()
    for step in range(steps):
        while True:
            if not waiting:
                waiting.append(next(source))
            job = waiting[0]
            need = max(job.stored, job.prompt)
            if len(pool.free) - math.ceil(need / block_size) < spare:
                break
            job.table, job.stored = blocks.allocate(pool, math.ceil(need / block_size)), need
            running.append(waiting.popleft())
        if step >= warmup:
            held = sum(len(job.table) for job in running) * block_size
            tally.steps += 1
            tally.requests += len(running)
            tally.stored += sum(job.stored for job in running)
            tally.internal += held - sum(job.stored for job in running)
            tally.free += SLOTS - held
            tally.finished += sum(job.stored == job.final for job in running)
        for job in [job for job in running if job.stored == job.final]:
            blocks.release(pool, job.table)
            running.remove(job)
        for job in list(running):
            if job not in running:
                continue  # gave way in this very step
            if job.stored == len(job.table) * block_size:
                while not pool.free:
                    victim = running.pop()
                    blocks.release(pool, victim.table)
                    victim.table = []
                    waiting.appendleft(victim)
                    tally.preempted += step >= warmup
                if job not in running:
                    continue
                job.table += blocks.allocate(pool, 1)
            job.stored += 1
    blocks.check_integrity(pool, [job.table for job in running])
    return tally


# ---------------------------------------------------------------- block size


def last_block(block_size: int, sample: Sequence[Job]) -> tuple[float, float]:
    """Slots of a request's last block that are empty, averaged over requests and their lives.

    Returns the mean number of empty slots and their share of all that the requests hold.
    """
    empty = held = moments = 0
    for job in sample:
        for length in range(job.prompt, job.final + 1):
            given = -(-length // block_size) * block_size
            empty, held, moments = empty + given - length, held + given, moments + 1
    return empty / moments, empty / held


# ---------------------------------------------------------------- main


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fragmentation",
                                     description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few steps: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    given = list(sys.argv[1:] if argv is None else argv)
    steps, warmup = (300, 100) if args.smoke else (7000, 1000)
    seed = 8
    with results.record("fragmentation", argv=given, out=args.out, device="cpu") as r:
        source = jobs(seed)
        sample = [next(source) for _ in range(100 if args.smoke else 1000)]
        note = f"{len(sample)} requests of the simulated workload"
        for what in ("prompt", "output", "asked", "final"):
            mean = sum(getattr(job, what) for job in sample) / len(sample)
            r.value(f"mean_{what}", mean, unit="token", note=note)
        r.value("slots", SLOTS, unit="token")
        r.value("longest", LONGEST, unit="token")
        tallies = {rule: contiguous(rule, steps, warmup, seed)
                   for rule in ("longest", "asked", "oracle")}
        tallies["paged"] = paged(steps, warmup, seed)
        rows = []
        for name, t in tallies.items():
            note = f"{t.steps} simulated steps of {SLOTS:,} slots"
            r.value(f"{name}_stored", t.share("stored"), unit="", note=note)
            r.value(f"{name}_requests", t.requests / t.steps, unit="", note=note)
            r.value(f"{name}_internal", t.share("internal"), unit="", note=note)
            r.value(f"{name}_blocked", t.blocked / t.steps, unit="", note="share of steps in which "
                    "the holes together would have held the next request")
            rows.append([name, t.requests / t.steps, t.share("stored"), t.share("reserved"),
                         t.share("internal"), t.share("free"), t.finished / t.steps])
        r.table("waste", [("policy", ""), ("requests", ""), ("stored", ""), ("reserved", ""),
                          ("internal", ""), ("free", ""), ("finished", "")], rows)
        gain = tallies["paged"].requests / tallies["longest"].requests
        r.value("gain", gain, unit="", note="requests inside, paged over longest")
        r.value("preempted", tallies["paged"].preempted / tallies["paged"].finished, unit="",
                note="preemptions for each finished request, paged")
        sizes = [[size, (size - 1) / 2, *last_block(size, sample)] for size in SIZES]
        r.table("block_size", [("block_size", "token"), ("expected", "token"), ("empty", "token"),
                               ("share", "")], sizes)
        for size, _, empty, share in sizes:
            if size in (16, 128):
                r.value(f"empty_{size}", empty, unit="token", note=note)
                r.value(f"empty_share_{size}", share, unit="", note=note)


if __name__ == "__main__":
    main(sys.argv[1:])
