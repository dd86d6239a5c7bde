"""Chapter 11's simulations: the real scheduler in virtual time, Llama-3-8B on an H100's roofline.

    python -m benchmarks.scheduling [--smoke] [--out DIR]

Nothing here is timed: step times come from `infero.simulate.RooflineCost` with the limits that
results/h100/limits.json holds, and the share of the roofline that chapter 2 measured there. The
same inputs give the same numbers on every machine; it takes about four minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from infero import bench, disaggregation, hardware, results, roofline, simulate
from infero.disaggregation import Fleet, Link
from infero.scheduler import SchedulerConfig
from infero.simulate import FairQueue, Job, RooflineCost, Run

TTFT_SLO_S, TPOT_SLO_S = 1.0, 0.025
BLOCKS = 26_000  # of 16 tokens: what 16 GB of weights leave of 80 GB, at 90 %
WHOLE = 8192  # a budget that holds the longest prompt
SPAN = 32  # requests that decode while the long prompt arrives
LINK_BYTES_PER_S = 50e9  # 400 Gb/s, one network port a GPU


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def config(budget: int, **more: Any) -> SchedulerConfig:
    """256 requests at most, no prefix caching: prompts of the load share nothing."""
    given: dict[str, Any] = {"max_num_seqs": 256, "max_num_batched_tokens": budget,
                             "prefix_caching": False}
    return SchedulerConfig(**(given | more))


def simulated(jobs: Sequence[Job], cost: RooflineCost, scheduler: SchedulerConfig,
              blocks: int = BLOCKS, fair: FairQueue | None = None) -> Run:
    return simulate.simulate(jobs, scheduler, cost, num_blocks=blocks, fair=fair)


# ---------------------------------------------------------------- the parts


def steps(r: results.Recorder, cost: RooflineCost) -> None:
    """Step time over its tokens, beside 32 decoding requests of 1,024 tokens."""
    decoding = [(1, 1024)] * SPAN
    rows: list[list[Any]] = []
    for chunk in (0, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192):
        spans = decoding + ([(chunk, chunk)] if chunk else [])
        rows.append([chunk + SPAN, simulate.step_s(cost, spans)])
    r.table("step_by_tokens", columns=[("tokens", ""), ("time", "s")], rows=rows)
    r.value("decode_step", rows[0][1], unit="s", note=f"{SPAN} requests of 1,024 tokens")
    r.value("step_512", simulate.step_s(cost, [*decoding, (512 - SPAN, 512 - SPAN)]), unit="s",
            note="the same with a chunk, 512 tokens in all")
    r.value("prefill_8192", simulate.step_s(cost, [(8192, 8192)]), unit="s")


def long_prompt() -> list[Job]:
    """Requests that decode, and a prompt of 8,192 tokens that comes when all of them do."""
    return [Job(0.0, 960, 400) for _ in range(SPAN)] + [Job(3.0, 8192, 16)]


def stall(r: results.Recorder, cost: RooflineCost) -> None:
    """The gaps of a running request while a long prompt arrives."""
    rows: list[list[Any]] = []
    for budget in (256, 512, 1024, 2048, 4096, WHOLE):
        whole = budget == WHOLE
        run = simulated(long_prompt(), cost, config(budget, chunked_prefill=not whole))
        gaps = [gap for one in run.served[:SPAN] for gap, at in
                zip(one.itl_s, one.token_times_s[1:], strict=True) if at > 3.0]
        rows.append([budget, max(gaps), run.served[-1].latency.ttft_s])
        name = "whole" if whole else str(budget)
        r.value(f"stall_{name}", rows[-1][1], unit="s", note="longest gap of a running request")
        r.value(f"stall_ttft_{name}", rows[-1][2], unit="s", note="TTFT of the long prompt")
    r.table("stall", columns=[("budget", ""), ("gap", "s"), ("ttft", "s")], rows=rows)


def frontier(r: results.Recorder, cost: RooflineCost, n: int) -> None:
    """Latency and attainment over arrival rate and token budget."""
    rows: list[list[Any]] = []
    for rate in (4, 8, 12, 16, 18, 20, 22, 24, 26, 28):
        jobs = simulate.poisson_jobs(rate, n, 1, prompt=1024, output=256)
        for budget in (256, 512, 1024, 2048, WHOLE):
            run = simulated(jobs, cost, config(budget, chunked_prefill=budget < WHOLE))
            rows.append([budget, rate, run.output_tokens_per_s, run.ttft_s(50), run.ttft_s(99),
                         run.tpot_s(50), run.tpot_s(99), run.itl_s(99),
                         run.attainment(TTFT_SLO_S, TPOT_SLO_S)])
        say("frontier", rate)
    r.table("frontier", rows=rows, columns=[
        ("budget", ""), ("rate", "request/s"), ("throughput", "token/s"), ("ttft_p50", "s"),
        ("ttft_p99", "s"), ("tpot_p50", "s"), ("tpot_p99", "s"), ("itl_p99", "s"),
        ("attainment", "")])
    for budget in (256, 512, 1024, 2048, WHOLE):
        good = [row[1] for row in rows if row[0] == budget and row[8] >= 0.99 - 1e-9]
        r.value(f"good_rate_{budget}", max(good, default=0), unit="request/s",
                note="highest rate tried of which 99 % kept TTFT 1 s and TPOT 25 ms")
    worst = {row[0]: row for row in rows if row[1] == 20}
    for budget, row in worst.items():
        r.value(f"itl_p99_{budget}", row[7], unit="s", note="at 20 requests/s")
        r.value(f"ttft_p99_{budget}", row[4], unit="s", note="at 20 requests/s")


def policies(r: results.Recorder, cost: RooflineCost, n: int) -> None:
    """Time to first token by policy, in a burst that 32 places cannot hold."""
    jobs = simulate.poisson_jobs(24, n, 1, prompt=512, output=256, variation=2.0, most=4096)
    urgent = [replace(job, priority=0 if i % 10 == 0 else 1) for i, job in enumerate(jobs)]
    cases = {
        "fcfs": (jobs, "fcfs", 0.0),
        "sjf": (simulate.guessed(jobs, 0.0), "sjf", 0.0),
        "sjf_guess": (simulate.guessed(jobs, 1.0), "sjf", 0.0),
        "sjf_cap": ([replace(job, max_tokens=4096) for job in jobs], "sjf", 0.0),
        "priority": (urgent, "priority", 0.0),
    }
    rows: list[list[Any]] = []
    base: list[float] = []
    for name, (load, policy, ageing) in cases.items():
        run = simulated(load, cost, config(512, max_num_seqs=32, policy=policy, ageing=ageing))
        waits = [one.ttft_s for one in run.latencies()]
        if policy == "priority":
            first = [w for w, job in zip(waits, load, strict=True) if job.priority == 0]
            r.value("urgent_p99", bench.percentile(first, 99), unit="s", note="TTFT of every tenth "
                    "request, which is urgent")
            r.value("urgent_fcfs_p99", bench.percentile(
                [w for w, job in zip(base, load, strict=True) if job.priority == 0], 99), unit="s",
                note="TTFT of the same requests, first come first served")
        if policy == "fcfs":
            base = waits
        r.value(f"mean_ttft_{name}", statistics.mean(waits), unit="s")
        r.value(f"median_ttft_{name}", statistics.median(waits), unit="s")
        r.value(f"max_ttft_{name}", max(waits), unit="s")
        rows += [[name, q, bench.percentile(waits, q)] for q in range(0, 101, 2)]
    r.table("policies", columns=[("policy", ""), ("percentile", ""), ("ttft", "s")], rows=rows)
    say("policies")


def ageing(r: results.Recorder, cost: RooflineCost, n: int) -> None:
    """Shortest job first over a long time near saturation: the longest wait by rate of ageing."""
    jobs = simulate.guessed(
        simulate.poisson_jobs(15, n, 1, prompt=512, output=256, variation=2.0, most=4096), 0.0)
    rows: list[list[Any]] = []
    for rate in (0.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0):
        run = simulated(jobs, cost, config(512, max_num_seqs=32, policy="sjf", ageing=rate))
        waits = [one.queue_s for one in run.served]
        rows.append([rate, statistics.mean(waits), statistics.median(waits), max(waits)])
    run = simulated(jobs, cost, config(512, max_num_seqs=32))
    waits = [one.queue_s for one in run.served]
    r.value("fcfs_wait", statistics.mean(waits), unit="s", note="first come, first served")
    r.value("fcfs_longest_wait", max(waits), unit="s", note="first come, first served")
    r.table("ageing", columns=[("ageing", "token/s"), ("mean", "s"), ("median", "s"),
                               ("longest", "s")], rows=rows)
    for rate, mean, _, longest in rows:
        r.value(f"longest_wait_{rate:.0f}", longest, unit="s")
        r.value(f"mean_wait_{rate:.0f}", mean, unit="s")
    say("ageing")


def fairness(r: results.Recorder, cost: RooflineCost, n: int) -> None:
    """A tenant that floods, and one that does not, with and without a virtual token counter."""
    jobs = [replace(job, tenant="calm") for job in
            simulate.poisson_jobs(2, n // 10, 3, prompt=512, output=256)]
    jobs += [replace(job, tenant="flood") for job in
             simulate.poisson_jobs(30, n, 4, prompt=512, output=256)]
    for name, fair in (("fcfs", None), ("vtc", FairQueue())):
        run = simulated(jobs, cost, config(512, max_num_seqs=32), fair=fair)
        r.value(f"fair_rate_{name}", run.output_tokens_per_s, unit="token/s")
        for tenant in ("calm", "flood"):
            waits = [one.latency.ttft_s for one in run.served if one.job.tenant == tenant]
            r.value(f"fair_{name}_{tenant}", statistics.median(waits), unit="s",
                    note="median TTFT")
    say("fairness")


def preemption(r: results.Recorder, cost: RooflineCost, n: int) -> None:
    """A cache that is too small: preemptions, tokens computed twice and latency, by watermark."""
    jobs = simulate.poisson_jobs(20, n, 1, prompt=256, output=512, variation=0.5, most=2000)
    needed = sum(job.prompt_tokens + job.output_tokens - 1 for job in jobs)
    rows: list[list[Any]] = []
    for mark in (0.0, 0.01, 0.03, 0.1, 0.3):
        for host in (0, 20_000):
            run = simulated(jobs, cost, config(512, watermark=mark, host_blocks=host), blocks=3000)
            rows.append([mark, "swap" if host else "recompute", run.preemptions,
                         run.computed_tokens / needed - 1, run.output_tokens_per_s,
                         run.ttft_s(50), run.tpot_s(99), run.itl_s(100)])
    r.table("preemption", rows=rows, columns=[
        ("watermark", ""), ("mode", ""), ("preemptions", ""), ("recomputed", ""),
        ("throughput", "token/s"), ("ttft_p50", "s"), ("tpot_p99", "s"), ("longest_gap", "s")])
    for key, row in (("none", rows[0]), ("none_swap", rows[1]), ("tenth", rows[6])):
        r.value(f"preemptions_{key}", row[2], unit="", note=f"of {n} requests")
        r.value(f"recomputed_{key}", row[3], unit="", note="tokens computed more than once")
        r.value(f"preempt_rate_{key}", row[4], unit="token/s")
        r.value(f"preempt_gap_{key}", row[7], unit="s", note="longest gap between two tokens")
        r.value(f"preempt_ttft_{key}", row[5], unit="s", note="median TTFT")
    say("preemption")


def disaggregated(r: results.Recorder, cost: RooflineCost, n: int) -> None:
    """Four GPUs: all of them doing both, or some prefill and some decode."""
    link = Link(LINK_BYTES_PER_S, roofline.kv_bytes_per_token(cost.shape), latency_s=20e-6)
    cost = replace(cost, link_bytes_per_s=0.0)  # transfers are timed by the link alone

    def pools(jobs: Sequence[Job], p: int) -> Fleet:
        return disaggregation.disaggregated(jobs, p, 4 - p, config(2048), config(512), cost, link,
                                            num_blocks=BLOCKS)

    rows: list[list[Any]] = []
    rates = (8, 16, 24, 32, 40, 48, 56, 64)
    for rate in rates:
        jobs = simulate.poisson_jobs(rate, n, 1, prompt=2048, output=256, variation=0.5)
        fleets = {
            "whole": disaggregation.colocated(
                jobs, 4, config(WHOLE, chunked_prefill=False), cost, num_blocks=BLOCKS),
            "chunked": disaggregation.colocated(jobs, 4, config(512), cost, num_blocks=BLOCKS),
            "1 + 3": pools(jobs, 1), "2 + 2": pools(jobs, 2), "3 + 1": pools(jobs, 3),
        }
        for name, run in fleets.items():
            rows.append([name, rate, run.ttft_s(50), run.ttft_s(99), run.tpot_s(99),
                         run.itl_s(99), run.attainment(TTFT_SLO_S, 0.015)])
        say("disaggregation", rate)
    r.value("transfer", statistics.median(fleets["2 + 2"].transfer_s), unit="s",
            note="of a prompt's keys and values, median, waiting for the link included")
    r.table("disaggregation", rows=rows, columns=[
        ("placement", ""), ("rate", "request/s"), ("ttft_p50", "s"), ("ttft_p99", "s"),
        ("tpot_p99", "s"), ("itl_p99", "s"), ("attainment", "")])
    for name in ("whole", "chunked", "1 + 3", "2 + 2", "3 + 1"):
        good = [row[1] for row in rows if row[0] == name and row[6] >= 0.99 - 1e-9]
        r.value(f"disagg_good_{name.replace(' + ', '_')}", max(good, default=0), unit="request/s",
                note="highest rate tried of which 99 % kept TTFT 1 s and TPOT 15 ms")
    for row in rows:
        if row[1] == 24:
            r.value(f"disagg_itl_{row[0].replace(' + ', '_')}", row[5], unit="s",
                    note="p99 ITL at 24 requests/s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="few requests, to see that it works")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    scale = 0.05 if args.smoke else 1.0
    ratio = results.get("h100/roofline_sweep/prefill_2048_ratio").value
    cost = RooflineCost(roofline.shape("llama-3-8b"), hardware.measured("h100"), 1 / ratio,
                        results.get("h100/pitfalls/copy_pinned").value)
    with results.record("scheduling", argv=argv, out=args.out, device="cpu") as r:
        r.value("share", cost.share, unit="", note="of the roofline, as measured in chapter 2")
        steps(r, cost)
        stall(r, cost)
        policies(r, cost, int(400 * scale))
        fairness(r, cost, int(600 * scale))
        preemption(r, cost, int(300 * scale))
        ageing(r, cost, int(1500 * scale))
        frontier(r, cost, int(600 * scale))
        disaggregated(r, cost, int(500 * scale))


if __name__ == "__main__":
    main()
