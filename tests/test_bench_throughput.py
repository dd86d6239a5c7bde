"""Throughput of a batch: the job, both ways of batching, the peer, the scheduler alone."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import pytest
import torch

from infero import batching, bench_engine, bench_scheduler
from infero import bench_throughput as b
from infero.bench_throughput import Job, Run
from infero.engine import Engine, EngineConfig
from infero.errors import ParameterError, PromptError
from infero.lab.configurations import tiny_model
from infero.llm import LLM
from infero.model import Model, random_model
from tests.conftest import tiny_config

# ---------------------------------------------------------------- the job


def test_lengths() -> None:
    draw = random.Random(0)
    assert b.draw_lengths("7", 3, draw) == b.draw_lengths("fixed:7", 3, draw) == [7, 7, 7]
    even = b.draw_lengths("uniform:3:9", 2000, draw)
    assert set(even) == set(range(3, 10))
    odd = b.draw_lengths("geometric:32:256", 20_000, draw)
    assert min(odd) == 1 and max(odd) == 256
    assert statistics.mean(odd) == pytest.approx(32, rel=0.05)
    assert statistics.median(odd) == pytest.approx(22, abs=2)  # ln 2 of the mean: the long tail
    assert b.draw_lengths("geometric:2:1", 5, draw) == [1] * 5


@pytest.mark.parametrize("spec", ["", "x", "fixed:", "fixed:1:2", "uniform:5", "uniform:9:3",
                                  "geometric:32", "zipf:3", "1.5", "0", "fixed:-3", "uniform:0:4",
                                  "geometric:1:8", "geometric:0:8", "geometric:8:0"])
def test_bad_lengths_are_one_message(spec: str) -> None:
    with pytest.raises(ParameterError, match="Lengths"):
        b.draw_lengths(spec, 4, random.Random(0))


def test_a_job_is_the_same_for_the_same_seed() -> None:
    job = b.make_job(50, 20, "geometric:4:9", "uniform:2:5", 3)
    assert job == b.make_job(50, 20, "geometric:4:9", "uniform:2:5", 3)
    assert job != b.make_job(50, 20, "geometric:4:9", "uniform:2:5", 4)
    assert {len(p) for p in job.prompts} <= set(range(2, 6))
    assert max(max(p) for p in job.prompts) < 50
    assert job.longest == max(map(len, job.prompts)) + max(job.lengths)
    with pytest.raises(ParameterError, match="requests is 0"):
        b.make_job(50, 0, "4", "4", 0)


def test_the_published_workload() -> None:
    job = b.nano_vllm_job()
    assert (len(job.prompts), job.prompt_tokens, job.output_tokens) == (256, 142_827, 133_966)
    assert job.temperature == 0.6
    assert min(job.lengths) >= 100 and max(job.lengths) <= 1024


def test_shapes() -> None:
    config = b.shape_config("0.6b")
    assert (config.num_layers, config.hidden_size, config.qk_norm) == (28, 1024, True)
    assert b.shape_config("8B").rope_theta == 500_000
    with pytest.raises(ParameterError, match=r"llama-3-8b"):
        b.shape_config("9b")


# ---------------------------------------------------------------- the engine


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(tiny_config(), seed=1)


def engine_of(model: Model, job: Job, slots: int, **options: object) -> Engine:
    return Engine(model, b.engine_config(job, slots, 64, block_size=4, **options))


def test_both_ways_make_the_same_tokens_in_the_predicted_passes(model: Model) -> None:
    """Prompts that fit into the budget cost no pass of their own: the counts are exact."""
    job = b.make_job(211, 13, "geometric:6:20", "uniform:2:3", 5)
    engine, ideal = engine_of(model, job, 4), b.ideal_of(job, 4)
    seen: list[tuple[int, int]] = []
    one = b.continuous(engine, job, seen=lambda *now: seen.append(now))
    two = b.static(engine, job)
    three = b.static(engine, job, drop_finished=True)
    for run in (one, two, three):
        assert (run.tokens, run.requests, run.stopped) == (job.output_tokens, 13, "")
        assert run.tokens == sum(run.token_steps) and len(run.token_steps) == run.steps
        assert 0 < run.forward_s < run.step_s < run.duration_s
        assert 0 < run.peak_kv <= 1 and run.preemptions == 0 and run.cached_tokens == 0
        assert run.prompt_tokens == job.prompt_tokens
    assert one.steps == ideal.continuous_steps == batching.continuous_steps(job.lengths, 4)
    assert two.steps == three.steps == ideal.static_steps
    assert one.computed == three.computed < two.computed  # rows that run on cost tokens
    assert one.utilisation > two.utilisation == three.utilisation
    assert seen[-1] == (13, job.output_tokens) and len(seen) == one.steps
    assert b.share_reached(ideal, one, two) == pytest.approx(
        one.tokens_per_s / two.tokens_per_s / ideal.gain)
    engine.check_integrity()


def test_a_repeated_run_finds_no_prefix_of_the_one_before(model: Model) -> None:
    job = b.make_job(211, 6, "5", "16", 0)
    engine = engine_of(model, job, 3)
    first, second = b.continuous(engine, job), b.continuous(engine, job)
    assert first.computed == second.computed and second.cached_tokens == 0
    same = replace(job, prompts=[job.prompts[0]] * 6)
    assert b.continuous(engine, same).cached_tokens > 0


def test_preemption_is_counted(model: Model) -> None:
    job = b.make_job(211, 6, "20", "8", 0)
    run = b.continuous(engine_of(model, job, 6, num_blocks=16), job)
    assert run.preemptions > 0 and run.tokens == job.output_tokens and run.peak_kv > 0.9


def test_a_time_limit_and_ctrl_c_leave_what_was_measured(model: Model) -> None:
    job = b.make_job(211, 8, "30", "4", 0)
    engine = engine_of(model, job, 4)
    run = b.continuous(engine, job, limit_s=0.0)
    assert "time limit" in run.stopped and run.tokens == 0 and run.tokens_per_step == 0

    def interrupt(requests: int, tokens: int) -> None:
        if tokens >= 8:
            raise KeyboardInterrupt

    run = b.static(engine, job, seen=interrupt)
    assert run.stopped == "Ctrl-C" and 8 <= run.tokens < job.output_tokens
    assert not engine.has_unfinished()
    engine.check_integrity()
    assert "Ctrl-C" in b.sentences(job, [run])[-1]
    assert b.continuous(engine, job).tokens == job.output_tokens  # it can be used again


def test_a_job_beyond_the_context_is_one_message(model: Model) -> None:
    with pytest.raises(PromptError, match="context is 128"):
        b.check_fits(model, b.make_job(211, 2, "100", "60", 0))


def test_the_table_and_its_words() -> None:
    job = Job([[1]] * 4, [1, 8, 1, 8])
    fast = Run("continuous", 2, 1.0, 4, 18, 10, 40, step_s=1.0, forward_s=0.9)
    slow = Run("static", 2, 1.5, 4, 18, 16, 40, step_s=1.5, forward_s=1.4)
    rows = b.table_rows([fast, slow, replace(slow, name="transformers", step_s=0.0)])
    assert rows[0][:5] == ["continuous", "4", "18.0", "10", "4.0"]
    assert rows[0][5:7] == ["90 %", "10.0 %"] and rows[2][6] == "–"
    text = " ".join(b.sentences(job, [fast, slow]))
    ideal = batching.static_steps(job.lengths, 2) / batching.continuous_steps(job.lengths, 2)
    assert f"{ideal:.2f}×" in text and "1.50×" in text
    assert f"{100 * 1.5 / ideal:.0f} % of the ideal gain" in text


# ---------------------------------------------------------------- the peer


@pytest.mark.parametrize("changes", [{}, {"architecture": "qwen3", "qk_norm": True},
                                     {"tie_embeddings": True}])
def test_the_peer_computes_with_the_same_weights(changes: dict) -> None:
    pytest.importorskip("transformers")
    from infero import peers
    from infero.sampling import SamplingParams

    model = random_model(tiny_config(**changes), seed=2)
    peer = peers.transformers_model(model)
    prompts = [[5, 6, 7, 8], [9, 10]]
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    ours = [o.tokens for o in LLM(model, num_blocks=40).generate(prompts, params)]
    ids = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    theirs = peer.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert theirs[:, 4:].tolist() == ours
    seen: list[tuple[int, int]] = []
    job = Job(prompts, [6, 2])
    run = peers.transformers_static(peer, job, 2, seen=lambda *now: seen.append(now))
    assert (run.tokens, run.requests, run.steps) == (8, 2, 6) and seen == [(2, 8)]


def test_a_model_the_peer_does_not_know() -> None:
    pytest.importorskip("transformers")
    from infero import peers

    with pytest.raises(peers.PeerMissing, match="leave --compare away"):
        peers.transformers_model(random_model(tiny_config(sliding_window=8)))


# ---------------------------------------------------------------- the fake model


def test_scheduler_steps_are_timed() -> None:
    found = bench_scheduler.overhead(8, steps=20, waiting=30)
    assert found.running == 8 and len(found.step_s) == 20 and found.median_s > 0
    queued, dropped = bench_scheduler.add_times_s(100)
    assert queued > 0 and dropped > 0


def test_the_exponent_of_a_power_law() -> None:
    sizes = [32, 64, 128, 256]
    assert bench_scheduler.exponent(sizes, [3e-6 * n for n in sizes]) == pytest.approx(1)
    assert bench_scheduler.exponent(sizes, [1e-9 * n**2 for n in sizes]) == pytest.approx(2)


def test_a_step_does_not_look_at_the_queue() -> None:
    """10,000 waiting requests cost a running step next to nothing."""
    alone = bench_scheduler.overhead(16, steps=40)
    long = bench_scheduler.overhead(16, steps=40, waiting=10_000)
    assert min(long.step_s) < 5 * min(alone.step_s)


# ---------------------------------------------------------------- open and closed loads


def test_clients_share_the_engines_steps() -> None:
    """Four clients take fewer passes than their requests one after another would."""
    llm = LLM(tiny_model())
    assert llm.engine is not None
    work = bench_engine.Workload(8, prompt_tokens=4, new_tokens=12)
    report = bench_engine.closed_load(llm, work, clients=4)
    assert report.tokens == 96 and not report.stopped and len(report.latencies) == 8
    assert llm.engine.stats.steps < 96
    before = llm.engine.stats.steps
    report = bench_engine.open_load(llm, work, 10_000.0)
    assert report.tokens == 96 and llm.engine.stats.steps - before < 96
    before = llm.engine.stats.steps
    bench_engine.open_load(llm, work, 10_000.0, one_at_a_time=True)
    assert llm.engine.stats.steps - before == 96
    llm.engine.check_integrity()


def test_an_engine_without_steps_serves_one_at_a_time() -> None:
    llm = LLM(tiny_model(), use_cache=False)
    work = bench_engine.Workload(4, prompt_tokens=3, new_tokens=3)
    for report in (bench_engine.open_load(llm, work, 1000.0),
                   bench_engine.closed_load(llm, work, 2)):
        assert report.tokens == 12 and len(report.latencies) == 4
        assert all(0 < one.ttft_s <= one.e2e_s for one in report.latencies)


def test_ctrl_c_leaves_what_was_answered(monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    llm = LLM(tiny_model())
    engine = llm.engine
    assert engine is not None
    work = bench_engine.Workload(6, prompt_tokens=3, new_tokens=4)
    step, left = engine.step, [40]

    def interrupted() -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return step()

    left[0] = 6
    monkeypatch.setattr(engine, "step", interrupted)
    report = bench_engine.closed_load(llm, work, clients=2)
    assert report.stopped and 0 < len(report.latencies) < 6
    assert not engine.has_unfinished()
    engine.check_integrity()
    left[0] = 10_000
    monkeypatch.setattr(bench_engine, "service", lambda *_: bench_engine.bench.Timing((0.1,)))

    def closed(*_: object) -> object:
        return report

    monkeypatch.setattr(bench_engine, "closed_load", closed)
    with pytest.raises(KeyboardInterrupt):
        bench_engine.print_bench(llm, work)
    assert "(stopped)" in capsys.readouterr().out


def test_a_failing_engine_stops_the_load() -> None:
    """An error in a step reaches the caller, and no client waits for ever."""
    llm = LLM(tiny_model(), num_blocks=1, block_size=4)
    with pytest.raises(PromptError):
        bench_engine.closed_load(llm, bench_engine.Workload(3, 30, 3), clients=2)


def test_the_config_of_a_job() -> None:
    config = b.engine_config(Job([[1] * 5], [7]), 3, num_blocks=None, block_size=8)
    assert isinstance(config, EngineConfig)
    assert (config.max_num_seqs, config.max_model_len, config.block_size) == (3, 12, 8)
    assert config.max_num_batched_tokens == 512
