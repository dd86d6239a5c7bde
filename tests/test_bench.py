"""Timers, percentiles, latencies and load generators, against numpy, theory and virtual time."""

from __future__ import annotations

import asyncio
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infero import bench, bench_engine
from infero.bench import Latency, SerialQueue, VirtualClock
from infero.errors import ParameterError

floats = st.floats(-1e6, 1e6, allow_nan=False)


# ---------------------------------------------------------------- timing


def test_time_it_waits_for_an_asynchronous_device() -> None:
    clock = VirtualClock()
    clock.launch(5.0)  # somebody else's work is still queued
    samples = bench.time_it(lambda: clock.launch(0.25, host_s=0.01), clock, warmup=2, repeats=4)
    assert samples == pytest.approx([0.26] * 4)


def test_time_it_leaves_slow_first_calls_out() -> None:
    clock, costs = VirtualClock(), iter([3.0, 2.0, 0.5, 0.6])
    samples = bench.time_it(lambda: clock.spend(next(costs)), clock, warmup=2, repeats=2)
    assert samples == pytest.approx([0.5, 0.6])


def test_measure_repeats_until_enough_time_has_passed() -> None:
    clock = VirtualClock()
    quick = bench.measure(lambda: clock.spend(0.01), clock, min_time_s=1.0)
    assert quick.n == 100
    assert quick.median_s == pytest.approx(0.01)
    assert quick.spread == pytest.approx(0.0, abs=1e-9)
    slow = bench.measure(lambda: clock.spend(2.0), clock, min_time_s=1.0)
    assert slow.n == 5
    capped = bench.measure(lambda: clock.spend(1e-6), clock, min_time_s=1.0, max_repeats=50)
    assert capped.n == 50


def test_timing_on_the_cpu_is_about_right() -> None:
    timing = bench.measure(lambda: sum(range(20_000)), min_time_s=0.05)
    assert 1e-5 < timing.median_s < 1e-1
    assert "IQR" in str(timing)
    assert isinstance(bench.clock_of("cuda:1"), bench.CudaClock)
    assert type(bench.clock_of("cpu")) is bench.CpuClock


def test_a_clock_sleeps_until_a_moment() -> None:
    clock = bench.CpuClock()
    until = clock.now_s() + 0.02
    clock.sleep_until(until)
    assert clock.now_s() >= until
    before = clock.now_s()
    clock.sleep_until(before - 5)
    assert clock.now_s() - before < 0.5


# ---------------------------------------------------------------- percentiles


@given(st.lists(floats, min_size=1, max_size=60), st.floats(0, 100))
def test_percentile_is_numpys(samples: list[float], q: float) -> None:
    before = list(samples)
    assert bench.percentile(samples, q) == pytest.approx(
        float(np.percentile(samples, q)), rel=1e-9, abs=1e-6)
    assert samples == before


def test_percentile_with_failed_requests() -> None:
    assert bench.percentile([1.0, math.inf, 2.0], 50) == 2.0
    assert bench.percentile([1.0, math.inf, 2.0], 75) == math.inf
    assert bench.percentile([math.inf, math.inf], 50) == math.inf


@pytest.mark.parametrize("samples, q", [([], 50), ([1.0], -1), ([1.0], 100.5), ([1.0], math.nan)])
def test_percentile_refuses(samples: list[float], q: float) -> None:
    with pytest.raises(ParameterError):
        bench.percentile(samples, q)


def test_interval_of_a_percentile_covers_as_often_as_it_says() -> None:
    draw = random.Random(5)
    for q, n in ((50, 40), (90, 120), (99, 800)):
        truth = -math.log(1 - q / 100)
        hits = 0
        for _ in range(300):
            low, high = bench.percentile_interval([draw.expovariate(1) for _ in range(n)], q, 0.9)
            hits += low <= truth <= high
        assert hits >= 255, (q, n, hits)  # 270 expected, at least that many by construction


def test_interval_is_open_where_samples_are_few() -> None:
    assert bench.percentile_interval([float(i) for i in range(100)], 99) == (96.0, math.inf)
    with pytest.raises(ParameterError):
        bench.percentile_interval([], 50)


# ---------------------------------------------------------------- requests


def test_latency_from_token_times() -> None:
    one = bench.latency(10.0, [10.5, 10.7, 11.1])
    assert one.ttft_s == pytest.approx(0.5)
    assert one.tpot_s == pytest.approx(0.3)
    assert one.e2e_s == pytest.approx(1.1)
    assert bench.inter_token_s([10.5, 10.7, 11.1]) == pytest.approx([0.2, 0.4])
    assert bench.latency(1.0, [1.5]) == Latency(0.5, 0.0, 0.5)
    assert bench.latency(1.0, []) == Latency(math.inf, math.inf, math.inf)


def test_goodput_needs_both_limits() -> None:
    many = [Latency(1.0, 0.1, 2.0), Latency(1.1, 0.1, 2.0), Latency(1.0, 0.11, 2.0),
            bench.latency(0.0, [])]
    assert bench.goodput(many, 2.0, ttft_slo_s=1.0, tpot_slo_s=0.1) == 0.5
    assert bench.goodput([], 2.0, 1.0, 0.1) == 0.0


# ---------------------------------------------------------------- load and queues


def test_open_loop_counts_from_when_a_request_was_due() -> None:
    clock, service = VirtualClock(), [1.0, 0.1, 0.1]
    got = bench.open_loop(lambda i: clock.spend(service[i]), [0.5, 0.6, 5.0], clock)
    assert got == pytest.approx([1.0, 1.0, 0.1])


def test_open_loop_agrees_with_the_queue() -> None:
    draw = random.Random(2)
    due = bench.poisson_arrivals(3.0, 400, seed=1)
    service = [draw.uniform(0.05, 0.5) for _ in due]
    clock = VirtualClock()
    got = bench.open_loop(lambda i: clock.spend(service[i]), due, clock)
    times = iter(service)
    queue = SerialQueue(lambda: next(times))
    assert got == pytest.approx([queue(at) - at for at in due])


@pytest.mark.parametrize("load, variation", [(0.3, 0.0), (0.7, 0.0), (0.5, 1.0), (0.8, 1.0)])
def test_waits_follow_the_formula(load: float, variation: float) -> None:
    draw = random.Random(9)
    queue = SerialQueue(lambda: draw.expovariate(1.0) if variation else 1.0)
    for at in bench.poisson_arrivals(load, 200_000, seed=3):
        queue(at)
    want = bench.mean_wait_s(load, 1.0, variation)
    assert statistics.mean(queue.waits_s) == pytest.approx(want, rel=0.08)
    assert queue.busy_s / queue.free_s == pytest.approx(load, rel=0.03)


def test_formula_beyond_capacity() -> None:
    assert bench.mean_wait_s(2.0, 0.5) == math.inf
    assert bench.mean_wait_s(0.0, 0.5) == 0.0
    assert bench.requests_in_flight(4.0, 0.5) == 2.0


def test_closed_loop_hides_queueing() -> None:
    one = bench.closed_loop(SerialQueue(lambda: 1.0), clients=1, requests=50, think_s=0.0)
    assert one == [1.0] * 50
    four = bench.closed_loop(SerialQueue(lambda: 1.0), clients=4, requests=50, think_s=0.0)
    assert four[10:] == [4.0] * 40  # never more than clients x service time
    thinking = bench.closed_loop(SerialQueue(lambda: 1.0), clients=4, requests=80, think_s=9.0)
    assert statistics.mean(thinking[20:]) == pytest.approx(1.0)


def test_arrivals() -> None:
    times = bench.poisson_arrivals(5.0, 20_000, seed=0)
    assert times == bench.poisson_arrivals(5.0, 20_000, seed=0) != bench.poisson_arrivals(
        5.0, 20_000, seed=1)
    gaps = np.diff([0.0, *times])
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() == pytest.approx(0.2, rel=0.05)
    assert bench.constant_arrivals(4.0, 3) == [0.25, 0.5, 0.75]


def test_open_loop_of_a_concurrent_server() -> None:
    async def send(i: int) -> None:
        await asyncio.sleep(0.03)

    clock = bench.CpuClock()
    due = [clock.now_s() + 0.001 * i for i in range(20)]
    latencies = asyncio.run(bench.open_loop_async(send, due, clock))
    assert len(latencies) == 20
    assert max(latencies) < 0.3  # 0.6 if they had waited for one another


# ---------------------------------------------------------------- the engine under load


def test_engine_under_both_loads(capsys: pytest.CaptureFixture[str]) -> None:
    from infero.lab.configurations import tiny_model
    from infero.llm import LLM

    llm, work = LLM(tiny_model()), bench_engine.Workload(
        5, prompt_tokens=4, new_tokens=3, ttft_slo_s=600.0, tpot_slo_s=600.0)
    reports = bench_engine.open_load(llm, work, 1000.0), bench_engine.closed_load(llm, work, 2)
    for report in reports:
        assert report.tokens == 15
        assert len(report.latencies) == 5
        assert 0 < report.percentile("ttft_s", 50) <= report.percentile("e2e_s", 50)
        assert report.goodput_per_s == pytest.approx(report.requests_per_s)
    bench_engine.print_bench(llm, work, rate_per_s=200.0)
    said = capsys.readouterr().out
    assert "goodput" in said
    with pytest.raises(ParameterError, match="requests is 0"):
        bench_engine.Workload(requests=0)
