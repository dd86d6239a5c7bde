"""The simulated load: virtual time by hand, the real scheduler inside, what must always hold."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest

from infero import bench, hardware, roofline, simulate
from infero.errors import ParameterError
from infero.scheduler import SchedulerConfig
from infero.simulate import FairQueue, Job, LinearCost, RooflineCost, poisson_jobs

COST = LinearCost(0.010, 0.001)
PLAIN = SchedulerConfig(max_num_seqs=8, max_num_batched_tokens=64, prefix_caching=False)


def run(jobs, config=PLAIN, **more):
    return simulate.simulate(jobs, config, COST, **more)


def test_one_request_by_hand():
    one = run([Job(2.0, 100, 3)]).served[0]
    # chunks of 64 and 36, then two decode steps: 74 + 46, 11, 11 ms
    assert one.token_times_s == pytest.approx([2.120, 2.131, 2.142])
    assert one.queue_s == 0 and one.preemptions == 0
    assert one.latency.ttft_s == pytest.approx(0.120)
    assert one.itl_s == pytest.approx([0.011, 0.011])


def test_a_prompt_beside_a_running_request_by_hand():
    config = SchedulerConfig(max_num_seqs=8, max_num_batched_tokens=64, prefix_caching=False,
                             chunked_prefill=False)
    jobs = [Job(0.0, 4, 8), Job(0.02, 200, 1)]
    chunked, whole = run(jobs), run(jobs, config)
    # with chunks a step never takes more than the budget's 74 ms; whole, 201 tokens take 211 ms
    assert max(chunked.served[0].itl_s) == pytest.approx(0.074)
    assert max(whole.served[0].itl_s) == pytest.approx(0.211)
    assert whole.served[1].latency.ttft_s < chunked.served[1].latency.ttft_s


def test_the_queue_is_waited_for():
    config = SchedulerConfig(max_num_seqs=1, max_num_batched_tokens=64, prefix_caching=False)
    first, second = run([Job(0.0, 10, 5), Job(0.0, 10, 1)], config).served
    assert second.queue_s == pytest.approx(first.token_times_s[-1])


def test_a_serial_server_agrees_with_pollaczek_and_khinchine():
    config = SchedulerConfig(max_num_seqs=1, max_num_batched_tokens=64, prefix_caching=False)
    rate, service = 12.0, 0.010 + 0.050  # prompts of 50, one token: M/D/1 at load 0.72
    jobs = [Job(at, 50, 1) for at in bench.poisson_arrivals(rate, 6000, 3)]
    waited = statistics.mean(one.queue_s for one in run(jobs, config).served)
    assert waited == pytest.approx(bench.mean_wait_s(rate, service), rel=0.12)


def test_littles_law():
    jobs = poisson_jobs(4.0, 400, 1, prompt=40, output=12)
    done = run(jobs)
    mean = statistics.mean(one.latency.e2e_s for one in done.served)
    inside = 0.0
    moments = sorted([(one.job.arrival_s, 1) for one in done.served]
                     + [(one.token_times_s[-1], -1) for one in done.served])
    count = 0
    for (at, change), (after, _) in itertools.pairwise(moments):
        count += change
        inside += count * (after - at)
    assert inside / len(jobs) == pytest.approx(mean)


def test_every_token_comes_once_and_in_order():
    jobs = poisson_jobs(50.0, 80, 2, prompt=60, output=20)
    done = run(jobs, num_blocks=40)  # far too small for eight at once: it must preempt
    assert done.preemptions > 0
    for job, one in zip(jobs, done.served, strict=True):
        assert len(one.token_times_s) == job.output_tokens
        assert all(a < b for a, b in itertools.pairwise(one.token_times_s))
        assert one.token_times_s[0] > job.arrival_s
    assert done.computed_tokens > sum(j.prompt_tokens + j.output_tokens - 1 for j in jobs)
    roomy = run(jobs, num_blocks=4000)
    assert roomy.preemptions == 0
    assert roomy.computed_tokens == sum(j.prompt_tokens + j.output_tokens - 1 for j in jobs)


def test_swapping_computes_less_than_recomputing():
    jobs = poisson_jobs(50.0, 80, 2, prompt=60, output=20)
    swap = SchedulerConfig(max_num_seqs=8, max_num_batched_tokens=64, prefix_caching=False,
                           host_blocks=400)
    again, back = run(jobs, num_blocks=40), run(jobs, swap, num_blocks=40)
    assert back.preemptions > 0 and back.computed_tokens < again.computed_tokens


def test_the_same_load_gives_the_same_run():
    jobs = poisson_jobs(10.0, 50, 7)
    assert run(jobs).latencies() == run(list(jobs)).latencies()


def test_lengths_have_the_mean_that_was_asked_for():
    jobs = poisson_jobs(1.0, 20_000, 5, prompt=400, output=100, variation=1.0, most=10**6)
    assert statistics.mean(j.prompt_tokens for j in jobs) == pytest.approx(400, rel=0.03)
    assert statistics.mean(j.output_tokens for j in jobs) == pytest.approx(100, rel=0.03)
    lengths = [j.output_tokens for j in jobs]
    assert statistics.pvariance(lengths) / statistics.mean(lengths)**2 == pytest.approx(1, rel=0.15)
    assert {j.prompt_tokens for j in poisson_jobs(1.0, 9, 5, prompt=7, variation=0)} == {7}


def test_guesses_without_error_are_the_truth():
    jobs = poisson_jobs(1.0, 30, 1)
    assert [j.expected_tokens for j in simulate.guessed(jobs, 0.0)] == [
        j.output_tokens for j in jobs]
    assert simulate.guessed(jobs, 1.0) != simulate.guessed(jobs, 0.0)


def test_the_scheduler_is_not_told_the_length():
    job = Job(0.0, 10, 4, max_tokens=500)
    assert len(run([job]).served[0].token_times_s) == 4


def test_a_mixed_step_costs_what_the_roofline_says():
    shape, device = roofline.shape("llama-3-8b"), hardware.device("h100")
    cost = RooflineCost(shape, device)
    for new, context in ((1, 1024), (512, 512), (256, 2048)):
        alone = simulate.step_s(cost, [(new, context)])
        want = roofline.predict(shape, device, new=new, context=context)
        assert alone == pytest.approx(want.time_s, rel=1e-9)
    both = simulate.step_s(cost, [(1, 1024)] * 64 + [(512, 512)])
    parts = simulate.step_s(cost, [(1, 1024)] * 64) + simulate.step_s(cost, [(512, 512)])
    assert both < parts  # the weights are read once
    slow = RooflineCost(shape, device, share=0.5)
    assert simulate.step_s(slow, [(1, 9)]) == pytest.approx(2 * simulate.step_s(cost, [(1, 9)]))


def test_goodput_and_attainment():
    done = run(poisson_jobs(5.0, 60, 1, prompt=40, output=6))
    assert done.attainment(math.inf, math.inf) == pytest.approx(1)
    assert done.goodput(0.0, 0.0) == 0
    assert 0 < done.utilisation <= 1


def test_no_jobs_is_an_error():
    with pytest.raises(ParameterError):
        run([])


# ---------------------------------------------------------------- fairness


def flood() -> list[Job]:
    """A tenant that sends 60 requests at once, and one that sends one every half second."""
    return ([Job(0.0, 60, 10, tenant="flood") for _ in range(60)]
            + [Job(0.1 + 0.5 * i, 60, 10, tenant="calm") for i in range(6)])


def test_a_flood_does_not_drown_the_other_tenant():
    config = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64, prefix_caching=False)

    def worst(fair):
        done = simulate.simulate(flood(), config, COST, fair=fair)
        assert all(one.token_times_s for one in done.served)
        return max(one.latency.ttft_s for one in done.served if one.job.tenant == "calm")

    assert worst(FairQueue()) < 0.25 * worst(None)


def test_two_backlogged_tenants_are_served_alike():
    """Within the paper's bound: twice the larger of a prompt and what a batch may put out."""
    config = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64, prefix_caching=False)
    jobs = [Job(0.0, 20, 40, tenant="long") for _ in range(40)]
    jobs += [Job(0.0, 20, 5, tenant="short") for _ in range(200)]
    fair = FairQueue()
    done = simulate.simulate(jobs, config, COST, fair=fair)
    half = done.duration_s / 3  # both still wait then

    def service(tenant):
        mine = [one for one in done.served if one.job.tenant == tenant]
        tokens = sum(t <= half for one in mine for t in one.token_times_s)
        started = sum(one.scheduled_s <= half for one in mine)
        return 20 * started + 2 * tokens

    assert abs(service("long") - service("short")) <= 2 * max(20, 2 * 4 * 64)


def test_who_comes_back_has_saved_nothing_up():
    fair = FairQueue()
    jobs = [Job(0.0, 10, 2, tenant=t) for t in ("a", "b")]
    a, b = (simulate._request(i, job) for i, job in enumerate(jobs))
    fair.add("a", a)
    assert fair.pop() is a
    for _ in range(50):
        fair.token("a")
    fair.add("a", a)
    fair.add("b", b)  # never seen before
    assert fair.served["b"] == fair.served["a"]
