"""The simulation behind chapter 8's first figure: it accounts for every slot and repeats itself."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from benchmarks import fragmentation
from benchmarks.fragmentation import SLOTS, Job, contiguous, jobs, last_block, paged


@pytest.mark.parametrize("rule", ["longest", "asked", "oracle"])
def test_every_slot_is_in_one_state(rule: str) -> None:
    t = contiguous(rule, steps=160, warmup=20, seed=3)
    parts = [t.share(what) for what in ("stored", "reserved", "internal", "free")]
    assert sum(parts) == pytest.approx(1)
    assert all(part >= 0 for part in parts)
    assert (t.internal == 0) == (rule == "oracle")


def test_pages_waste_the_end_of_a_block_and_nothing_else() -> None:
    t = paged(steps=300, warmup=50, seed=3)
    assert t.share("stored") + t.share("internal") + t.share("free") == pytest.approx(1)
    assert t.internal / t.requests == pytest.approx((fragmentation.BLOCK - 1) / 2, rel=0.15)
    assert t.share("stored") > 0.9


def test_the_paged_cache_gives_every_request_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small cache: requests are preempted, and each still ends with all of its tokens."""
    seen: list[Job] = []

    def few(seed: int):  # type: ignore[no-untyped-def]
        for job in jobs(seed):
            seen.append(job)
            yield job

    monkeypatch.setattr(fragmentation, "jobs", few)
    monkeypatch.setattr(fragmentation, "SLOTS", 8192)
    t = paged(steps=1500, warmup=0, seed=5)
    done = [job for job in seen if job.stored == job.final]
    assert t.preempted > 0
    assert t.finished == len(done) > 10
    assert all(job.stored <= job.final for job in seen)


def test_requests_stay_within_their_limits() -> None:
    for job in itertools.islice(jobs(1), 500):
        assert 1 <= job.output <= job.asked
        assert job.prompt + job.asked <= fragmentation.LONGEST


def test_a_last_block_is_half_empty() -> None:
    every = [Job(prompt=16, output=15, asked=16)]  # lengths 16 to 31: each remainder once
    empty, share = last_block(16, every)
    assert empty == pytest.approx(7.5)
    assert 0 < share < 1
    assert last_block(1, every) == (0.0, 0.0)


def test_the_program_repeats_itself(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        fragmentation.main(["--smoke", "--out", str(tmp_path / name)])
        [path] = (tmp_path / name).glob("*/fragmentation.json")
        data = json.loads(path.read_text(encoding="utf-8"))
        found.append((data["values"], data["tables"]))
    assert found[0] == found[1]
    assert found[0][0]["slots"]["value"] == SLOTS
