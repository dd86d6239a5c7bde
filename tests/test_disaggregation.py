"""Prefill and decode on separate GPUs: times by hand, and nothing lost on the way."""

from __future__ import annotations

import itertools

import pytest

from infero.disaggregation import Link, colocated, dealt, disaggregated
from infero.errors import ParameterError
from infero.scheduler import SchedulerConfig
from infero.simulate import Job, LinearCost, poisson_jobs, simulate

COST = LinearCost(0.010, 0.001)
BOTH = SchedulerConfig(max_num_seqs=16, max_num_batched_tokens=64, prefix_caching=False)
PREFILL = SchedulerConfig(max_num_seqs=16, max_num_batched_tokens=512, prefix_caching=False)
LINK = Link(bytes_per_s=1e6, token_bytes=1000, latency_s=0.005)


def test_one_request_by_hand():
    fleet = disaggregated([Job(1.0, 32, 3)], 1, 1, PREFILL, BOTH, COST, LINK)
    first = 1.0 + 0.010 + 0.032
    arrived = first + 0.005 + 32 * 1000 / 1e6  # the two full blocks are found, one token is new
    assert fleet.served[0].token_times_s == pytest.approx([first, arrived + 0.011, arrived + 0.022])
    assert fleet.transfer_s == pytest.approx([0.037])


def test_only_the_partial_block_is_computed_again():
    fleet = disaggregated([Job(0.0, 45, 2)], 1, 1, PREFILL, BOTH, COST, LINK)
    assert [run.computed_tokens for run in fleet.pools["prefill"]] == [45]
    assert [run.computed_tokens for run in fleet.pools["decode"]] == [45 + 1 - 32]


def test_transfers_of_one_gpu_queue():
    jobs = [Job(0.0, 32, 2), Job(0.0, 32, 2)]  # both prompts end in the same step
    fleet = disaggregated(jobs, 1, 1, PREFILL, BOTH, COST, LINK)
    assert sorted(fleet.transfer_s) == pytest.approx([0.037, 0.074])
    apart = disaggregated(jobs, 2, 1, PREFILL, BOTH, COST, LINK)
    assert apart.transfer_s == pytest.approx([0.037, 0.037])


def test_nothing_is_lost():
    jobs = poisson_jobs(8.0, 60, 4, prompt=80, output=10)
    fleet = disaggregated(jobs, 2, 2, PREFILL, BOTH, COST, LINK)
    for job, one in zip(jobs, fleet.served, strict=True):
        assert one.job == job and len(one.token_times_s) == job.output_tokens
        assert all(a < b for a, b in itertools.pairwise(one.token_times_s))
    for pool in ("prefill", "decode"):
        assert 0 < fleet.busy(pool) <= 1


def test_decoding_never_meets_a_prompt():
    jobs = [Job(0.0, 10, 40), *(Job(0.05 * i, 400, 2) for i in range(1, 8))]
    config = SchedulerConfig(max_num_seqs=16, max_num_batched_tokens=512, prefix_caching=False)
    together = colocated(jobs, 2, config, COST)
    apart = disaggregated(jobs, 1, 1, PREFILL, BOTH, COST, Link(1e12, 1000))
    assert max(together.served[0].itl_s) > 0.4
    assert max(apart.served[0].itl_s) < 0.05  # decode steps, and tails of blocks


def test_colocated_on_one_gpu_is_the_plain_simulation():
    jobs = poisson_jobs(6.0, 40, 9, prompt=50, output=8)
    assert colocated(jobs, 1, BOTH, COST).latencies() == simulate(jobs, BOTH, COST).latencies()


def test_more_gpus_than_jobs():
    fleet = colocated([Job(0.0, 10, 2)], 3, BOTH, COST)
    assert len(fleet.served) == 1


def test_a_pool_without_gpus_is_an_error():
    with pytest.raises(ParameterError):
        dealt([Job(0.0, 1, 1)], 0)
