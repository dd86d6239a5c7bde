"""The ladder: what a rung's work is, what cannot be climbed here, and how it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import ladder as program
from infero import bench_ladder as b
from infero import bench_limits as limits
from infero import bench_throughput as offline
from infero import cli, roofline
from infero.bench_limits import Limits, Work
from infero.cache import kv
from infero.engine import Engine, EngineConfig
from infero.model import Model, random_model
from tests.conftest import tiny_config

FAST = Limits("a machine", 1e12, {torch.float32: 1e15, torch.bfloat16: 2e15})
runner = CliRunner()


def ground(**changes: object) -> b.Ground:
    def make(dtype: str) -> Model:
        return random_model(tiny_config(**changes), seed=1, dtype=getattr(torch, dtype))

    return b.Ground("tiny", make, torch.device("cpu"), FAST, b.SMOKE, "bfloat16")


# ---------------------------------------------------------------- work


def test_the_limits_of_this_machine() -> None:
    found = limits.measure("cpu", small=True)
    assert found.read_bytes_per_s > 1e6 and min(found.flops_per_s.values()) > 1e6
    assert "GB/s" in found.words() and torch.float32 in found.flops_per_s
    assert found.peak(torch.float16) == max(found.flops_per_s.values())
    both = limits.measure("cpu", (torch.float32, torch.bfloat16), small=True)
    assert both.peak(torch.bfloat16) == both.flops_per_s[torch.bfloat16]
    assert len(found.read_samples) == 3


def test_a_work_is_bound_by_what_takes_longer() -> None:
    reading = Work(10, 2.0, 1e12, 1e10, torch.float32)  # a second of reading, 10 µs of computing
    assert reading.rate == 5 and reading.bandwidth == 5e11
    assert reading.least_s(FAST) == 1 and reading.limit(FAST) == 10 and reading.share(FAST) == 0.5
    computing = Work(10, 4.0, 1e9, 2e15, torch.float32)
    assert computing.least_s(FAST) == 2 and computing.share(FAST) == 0.5
    assert Work(10, 4.0, 1e9, 2e15, torch.bfloat16).least_s(FAST) == 1  # the faster format


def test_weights_read_are_all_but_the_embedding() -> None:
    for tied in (False, True):
        model = random_model(tiny_config(tie_embeddings=tied))
        embedding = 0 if tied else model.embedding.nbytes
        assert limits.weights_read(model) == model.parameter_bytes() - embedding


def test_decoding_reads_weights_and_the_growing_cache() -> None:
    model = random_model(tiny_config(), dtype=torch.bfloat16)
    work = limits.decode(model, 5, 4, 1.0)  # contexts of 6, 7 and 8 tokens
    cache = kv.empty(model.config, 1, 1, torch.bfloat16, "cpu").bytes
    assert work.tokens == 3
    assert work.bytes_moved == 3 * limits.weights_read(model) + 21 * cache
    steps = [roofline.step_flops(model.config, roofline.count_weights(model.config), 1, 1, c)
             for c in (6, 7, 8)]
    assert work.flops == sum(steps)


def test_recomputing_computes_every_token_each_time() -> None:
    model = random_model(tiny_config())
    work = limits.recompute(model, 5, 3, 1.0)  # sequences of 6 and 7 tokens
    weights = roofline.count_weights(model.config)
    assert work.flops == sum(roofline.step_flops(model.config, weights, 1, n, n) for n in (6, 7))
    assert work.bytes_moved == 2 * limits.weights_read(model)


def test_a_batch_of_one_is_its_prefill_and_its_decoding() -> None:
    model, weights = random_model(tiny_config()), None
    weights = roofline.count_weights(model.config)
    prompt, made = 5, 4
    work = limits.served(model, [prompt], [made], 0, made, 1.0)
    flops = roofline.step_flops(model.config, weights, 1, prompt, prompt)
    flops += sum(roofline.step_flops(model.config, weights, 1, 1, prompt + k) for k in (1, 2, 3))
    assert work.flops == pytest.approx(flops)
    token = limits.kv_token_bytes(model.config, model.dtype)
    moved = made * limits.weights_read(model) + roofline.kv_bytes(
        model.config, 1, prompt, prompt, 32) + sum(
        roofline.kv_bytes(model.config, 1, 1, prompt + k, 32) for k in (1, 2, 3))
    assert work.bytes_moved == pytest.approx(moved) and token > 0
    cached = limits.served(model, [prompt], [made], 4, made, 1.0)
    assert cached.flops < work.flops and cached.bytes_moved < work.bytes_moved


def test_served_counts_what_the_engine_computed() -> None:
    model = random_model(tiny_config(), seed=1)
    job = offline.make_job(211, 5, "uniform:2:6", "uniform:3:9", 1)
    engine = Engine(model, EngineConfig(max_num_seqs=5, num_blocks=40, block_size=4))
    before = engine.stats.tokens_computed
    (work,), gap = b.serve(engine, job)
    layers, head = roofline.count_weights(model.config)
    least = 2 * (layers * (engine.stats.tokens_computed - before) + head * job.output_tokens)
    assert work.tokens == job.output_tokens and gap > 0
    assert least < work.flops < 1.5 * least


# ---------------------------------------------------------------- climbing


def test_every_rung_has_its_chapter_in_the_books_order() -> None:
    keys = [rung.key for rung in b.RUNGS]
    assert len(set(keys)) == len(keys)
    assert keys.index("naive") < keys.index("cache") < keys.index("dtype") < keys.index("graphs")
    assert keys.index("int8") < keys.index("int4") < keys.index("batch") < keys.index("chunked")
    assert all(1 <= rung.chapter <= 20 and rung.line for rung in b.RUNGS)
    crowd = [rung.crowd for rung in b.RUNGS]
    assert crowd == sorted(crowd), "the crowd's rungs stand above those of one request"


def test_the_whole_ladder_on_a_cpu() -> None:
    begun: list[str] = []
    steps = list(b.climb(ground(), starting=lambda rung: begun.append(rung.key)))
    assert begun == [rung.key for rung in b.RUNGS]
    found = {step.rung.key: step for step in steps}
    for key in ("kernels", "graphs", "stored"):
        assert found[key].found is None and found[key].rate == 0 and found[key].problem
    assert "CPU" in found["graphs"].problem and "GGUF" in found["stored"].problem
    for key in ("naive", "cache", "dtype", "calls", "int8", "int4", "batch", "paged", "chunked"):
        step = found[key]
        assert step.work is not None and step.rate > 0 and 0 < step.work.share(FAST) < 1
    assert found["batch"].found is not None and found["batch"].found.itl_p99_s
    sizes = b.SMOKE
    one = found["cache"].found
    assert one is not None and len(one.works) == sizes.runs
    assert one.works[0].tokens == sizes.new - 1


def test_the_crowd_shares_its_beginning_and_pages_hold_more() -> None:
    here = ground()
    job = here.crowd(here.model("float32"))
    first = job.prompts[0][: b.SMOKE.prefix]
    assert all(p[: b.SMOKE.prefix] == first for p in job.prompts)
    batch, paged = b.batch_work(here), b.paged_work(here)
    assert paged.works[0].flops < batch.works[0].flops  # the shared tokens are computed once


def test_a_cpu_whose_fastest_format_is_float32_says_so() -> None:
    here = ground()
    here.best_dtype = "float32"
    (step,) = b.climb(here, [rung for rung in b.RUNGS if rung.key == "dtype"])
    assert "float32" in step.problem


def test_what_is_stored_runs_as_it_is() -> None:
    here, made = ground(), random_model(tiny_config(), dtype=torch.bfloat16)
    here.stored = lambda: made
    (step,) = b.climb(here, [rung for rung in b.RUNGS if rung.key == "stored"])
    assert step.found is not None and step.rate > 0 and not here.kept


def test_an_engine_without_a_switch_and_a_model_too_large_say_so(monkeypatch) -> None:
    with pytest.raises(b.NotHere, match="no switch 'nonsense'"):
        b.need("block_size", "nonsense")

    def full(_: b.Ground) -> b.Found:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 GiB\nmore")

    rung = b.Rung("big", "big", 1, "too big", full)
    (step,) = b.climb(ground(), [rung])
    assert step.problem.startswith("it does not fit here (CUDA out of memory")


def test_a_model_is_let_go_before_it_is_made_in_another_dtype() -> None:
    here = ground()
    first = here.model("float32")
    assert here.model("float32") is first
    assert here.model("bfloat16").dtype == torch.bfloat16 and list(here.kept) == ["bfloat16"]


def test_slower_is_reported_as_slower() -> None:
    def step(key: str, rate: float) -> b.Step:
        rung = next(r for r in b.RUNGS if r.key == key)
        return b.Step(rung, b.Found([Work(rate, 1.0, 1e9, 1e9, torch.float32)]))

    steps = [step("naive", 10), step("cache", 40), step("dtype", 20),
             b.Step(b.RUNGS[3], problem="there is no GPU"), step("batch", 60)]
    text = "\n".join(b.remarks(steps))
    assert "16-bit weights (chapter 2): slower than KV cache, 0.50× its rate." in text
    assert "fused kernels (chapter 13): there is no GPU." in text
    assert "continuous batching" not in text
    assert b.cells(steps[4], steps[:4], FAST)[2:5] == ["60.0", "3.00×", "6.0×"]
    assert b.cells(steps[3], steps[:3], FAST)[2] == "–"
    assert all(len(b.cells(s, [], FAST)) == len(b.COLUMNS) for s in steps)


# ---------------------------------------------------------------- program and command


def test_the_program_writes_every_rung(tmp_path: Path) -> None:
    program.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)])
    (path,) = tmp_path.glob("*/ladder.json")
    data = json.loads(path.read_text())
    names = [c["name"] for c in data["tables"]["smoke"]["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in data["tables"]["smoke"]["rows"]]
    assert [row["key"] for row in rows] == [rung.key for rung in b.RUNGS]
    values = data["values"]
    for row in rows:
        if row["rate"] is None:
            assert row["note"] and f"smoke_{row['key']}_rate" not in values
        else:
            assert values[f"smoke_{row['key']}_rate"]["value"] > 0
            assert values[f"smoke_{row['key']}_share"]["value"] == row["share"] > 0
    assert values["smoke_gain"]["value"] > 0 and values["read_bandwidth"]["value"] > 0


def test_the_command_refuses_what_it_does_not_know() -> None:
    for args, words in ((["--only", "naive,nonsense"], "no rung 'nonsense'"),
                        (["--shape", "9b"], "llama-3-8b"),
                        (["--shape", "8b", "--model", "x"], "exclude")):
        result = runner.invoke(cli.app, ["bench", "ladder", *args])
        assert result.exit_code != 0 and words in str(result.exception)


def test_the_command_prints_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b, "ground_of", lambda *_, **__: ground())
    result = runner.invoke(cli.app, ["bench", "ladder", "--quick", "--only", "naive,cache,int4"])
    assert result.exit_code == 0, result.output
    for words in ("naive, float32", "KV cache", "roofline", "4-bit weights"):
        assert words in result.output
