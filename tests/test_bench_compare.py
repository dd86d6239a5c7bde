"""The comparison with other engines: same work, honest gaps, and a table with ratios."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import compare as program
from infero import bench_compare as b
from infero import cli, peers, peers_speed
from infero.bench_limits import Limits, Work
from infero.bench_throughput import Job, Run
from infero.model import Model, random_model
from infero.peers import PeerMissing
from tests.conftest import tiny_config

FAST = Limits("a machine", 1e12, {torch.float32: 1e15, torch.bfloat16: 2e15})
runner = CliRunner()


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(tiny_config(max_context=64), seed=2)


@pytest.fixture(scope="module")
def peer(model: Model) -> Any:
    pytest.importorskip("transformers")
    return peers.transformers_model(model)


# ---------------------------------------------------------------- the peers


@pytest.mark.parametrize("static", [False, True])
def test_one_request_is_timed_from_its_first_to_its_last_token(peer: Any, static: bool) -> None:
    times = peers_speed.transformers_alone(peer, [1, 2, 3], 5, 2, static=static)
    assert len(times) == 2 and min(times) > 0


def test_the_token_clock_leaves_the_prompt_out() -> None:
    clock = peers_speed.TokenClock()
    clock.put(torch.zeros(1, 7, dtype=torch.int64))
    for _ in range(3):
        clock.put(torch.zeros(1, dtype=torch.int64))
    clock.end()
    assert len(clock.times_s) == 3 and clock.times_s == sorted(clock.times_s)


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_continuous_batching_makes_every_token(peer: Any, temperature: float) -> None:
    if problem := peers_speed.continuous_problem(peer):
        pytest.skip(problem)
    before = peer.config._attn_implementation
    job = Job([[5, 6, 7], [8, 9], [10]], [4, 2, 5], temperature)
    seen: list[tuple[int, int]] = []
    run = peers_speed.transformers_continuous(peer, job, 60.0, seen=lambda *now: seen.append(now))
    assert (run.tokens, run.requests, run.stopped) == (11, 3, "") and seen[-1] == (3, 11)
    assert run.duration_s > 0 and peer.config._attn_implementation == before


def test_a_time_limit_keeps_what_was_made(peer: Any) -> None:
    if problem := peers_speed.continuous_problem(peer):
        pytest.skip(problem)
    run = peers_speed.transformers_continuous(peer, Job([[5, 6, 7]] * 3, [40] * 3), 0.0)
    assert "time limit" in run.stopped and run.tokens < 120


def test_a_peer_without_continuous_batching_is_named(model: Model) -> None:
    with pytest.raises(PeerMissing, match="no continuous batching"):
        peers_speed.transformers_continuous(object(), Job([[1]], [1]), 1.0)


@pytest.mark.skipif(peers_speed.has_vllm(), reason="vLLM is installed")
def test_vllm_is_named_where_it_is_missing(model: Model) -> None:
    with pytest.raises(PeerMissing, match="vLLM is not installed"):
        peers_speed.vllm_times(model, None, [1], 2, 1, Job([[1]], [1]))


def test_vllm_s_answer_is_read(peer: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program is replaced by one that answers what it was asked."""
    fake = """
import json, os, sys
given = json.load(open(sys.argv[1]))
assert os.path.exists(given["folder"] + "/config.json") and given["dtype"] == "float32"
assert given["longest"] >= max(map(len, given["prompts"])) + max(given["lengths"])
print("noise")
print("INFERO" + json.dumps({"alone": [0.5] * given["runs"], "batch": 2.0}))
"""
    monkeypatch.setattr(peers_speed, "has_vllm", lambda: True)
    monkeypatch.setattr(peers_speed, "VLLM", fake)
    job = Job([[1, 2], [3]], [3, 4])
    assert peers_speed.vllm_times(model, peer.config, [1], 6, 2, job) == ([0.5, 0.5], 2.0)
    line = b.vllm_line(b.Bench(model, b.Task([1], 6, job, 2), FAST, peer))
    assert line.alone_rate == 10 and line.batch_rate == pytest.approx(3.5) and not line.problem
    monkeypatch.setattr(peers_speed, "VLLM", "raise SystemExit('no kernel image')")
    line = b.vllm_line(b.Bench(model, b.Task([1], 6, job, 2), FAST, peer))
    assert "vLLM did not run here: no kernel image" in line.problem


# ---------------------------------------------------------------- comparing


def test_infero_comes_first_and_every_engine_has_a_line(model: Model) -> None:
    pytest.importorskip("transformers")
    task = b.task_of(model, small=True, limit_s=30)
    names: list[str] = []
    lines = list(b.compare(b.Bench(model, task, FAST), starting=names.append))
    assert [line.key for line in lines] == [*(e.key for e in b.ENGINES), "vllm"]
    assert names[0] == "infero"
    ours, theirs = lines[0], lines[1]
    assert not ours.problem and ours.alone_rate and ours.batch_rate
    assert theirs.alone_rate and theirs.batch_rate
    assert ours.run is not None and ours.run.tokens == task.job.output_tokens
    assert ours.alone is not None and 0 < ours.alone.share(FAST) < 1
    found = {line.key: line for line in lines}
    assert "CPU" in found["transformers_static"].problem
    if not peers_speed.has_vllm():
        assert "not installed" in found["vllm"].problem


def test_a_peer_that_fails_leaves_the_rest(model: Model) -> None:
    def broken(_: b.Bench) -> list[float]:
        raise PeerMissing("no such attention\nand more")

    def works(_: b.Bench, seen: Any) -> Run:
        return Run("x", 1, 2.0, 1, 10)

    def interrupted(_: b.Bench, seen: Any) -> Run:
        return Run("x", 1, 2.0, 1, 5, stopped="Ctrl-C")

    task = b.task_of(model, small=True)
    bench = b.Bench(model, task, FAST)
    line = b.line_of(bench, b.Engines("x", "x", broken, works), lambda *_: None)
    assert line.problem == "no such attention" and line.batch_rate == 5 and line.alone_rate is None
    with pytest.raises(KeyboardInterrupt):
        b.line_of(bench, b.Engines("x", "x", None, interrupted), lambda *_: None)


def test_the_task_is_the_published_one_on_a_gpu() -> None:
    class Gpu:
        config = tiny_config(vocab_size=151_936)
        device = torch.device("cuda")

    task = b.task_of(Gpu())  # type: ignore[arg-type]
    assert (len(task.prompt), task.new, len(task.job.prompts)) == (128, 256, 256)
    assert (task.job.prompt_tokens, task.job.output_tokens) == (142_827, 133_966)
    assert task.job.temperature == 0.6 and task.limit_s == math.inf
    assert task.budget is not None and task.budget >= 2048


def test_ratios_are_infero_s_over_theirs() -> None:
    work = Work(100, 1.0, 5e11, 1e9, torch.bfloat16)
    ours = b.Line("infero", "infero", (90.0, 100.0, 130.0), work, Run("infero", 1, 1.0, 1, 600))
    theirs = b.Line("peer", "peer", (50.0,), None, Run("peer", 1, 2.0, 1, 600))
    assert b.cells(ours, ours, FAST) == ["infero", "100.0", "", "50 %", "600.0", ""]
    assert b.cells(theirs, ours, FAST) == ["peer", "50.0", "2.00×", "", "300.0", "2.00×"]
    none = b.Line("gone", "gone", problem="it is not installed here")
    assert b.cells(none, ours, FAST) == ["gone", "–", "", "", "–", ""]
    assert len(b.COLUMNS) == 6


def test_a_model_can_be_emptied_for_the_next_engine() -> None:
    model = random_model(tiny_config())
    b.empty_model(model)
    assert not model.layers and model.embedding.numel() == 0


# ---------------------------------------------------------------- program and command


def test_the_program_writes_rates_and_gains(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    program.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)])
    (path,) = tmp_path.glob("*/compare.json")
    data = json.loads(path.read_text())
    values = {k: v["value"] for k, v in data["values"].items()}
    assert values["gain_alone_over_transformers_dynamic"] == pytest.approx(
        values["infero_alone_rate"] / values["transformers_dynamic_alone_rate"])
    assert values["gain_batch_over_transformers_dynamic"] == pytest.approx(
        values["infero_batch_rate"] / values["transformers_dynamic_batch_rate"])
    assert len(data["tables"]["engines"]["rows"]) == len(b.ENGINES) + 1


def test_the_command_prints_a_table_and_what_is_missing(
        model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from infero import cli_speed

    monkeypatch.setattr(cli_speed, "_weights", lambda *_: model)
    result = runner.invoke(cli.app, ["bench", "compare", "--quick"])
    assert result.exit_code == 0, result.output
    for words in ("infero", "transformers, generate()", "batch tok/s", "on a CPU it would compile"):
        assert words in result.output


def test_the_command_refuses_bad_options() -> None:
    for args, words in ((["--requests", "0"], "requests is 0"),
                        (["--shape", "8b", "--model", "x"], "exclude")):
        result = runner.invoke(cli.app, ["bench", "compare", *args])
        assert result.exit_code != 0 and words in str(result.exception)
