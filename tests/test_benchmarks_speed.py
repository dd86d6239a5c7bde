"""The programs that time the engine: what they write down, and how they count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import decode_speed, throughput


def values_of(folder: Path, name: str) -> dict[str, dict]:
    (path,) = folder.glob(f"*/{name}.json")
    return json.loads(path.read_text())["values"]


def test_decode_speed_writes_rate_bytes_and_share(tmp_path: Path) -> None:
    assert decode_speed.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    values = values_of(tmp_path, "decode_speed")
    rate, read = (values[f"qwen3_06b_bf16_{key}"]["value"] for key in ("rate", "bytes"))
    weights = values["qwen3_06b_bf16_weight_bandwidth"]["value"]
    assert weights == pytest.approx(rate * read, rel=0.5)  # medians of two runs
    assert values["qwen3_06b_bf16_share"]["value"] * values["read_bandwidth"][
        "value"] == pytest.approx(values["qwen3_06b_bf16_bandwidth"]["value"])
    assert values["qwen3_06b_bf16_bandwidth"]["value"] > weights  # the cache comes on top


def test_decode_speed_covers_the_table_of_the_peers() -> None:
    bars = {case.name: case.bar for case in decode_speed.CASES if case.bar}
    assert bars == {"qwen3_06b_bf16": 750, "llama3_8b_bf16": 168, "llama3_8b_int8": 280,
                    "llama3_8b_int4": 380}
    shapes = [case.shape for case in decode_speed.CASES]
    assert shapes == sorted(shapes), "each model is built once"


def test_a_case_that_fails_leaves_the_others(tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(decode_speed, "measure", broken)
    assert decode_speed.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 1
    assert set(values_of(tmp_path, "decode_speed")) == {"read_bandwidth"}


def test_throughput_writes_the_phases(tmp_path: Path) -> None:
    assert throughput.main(["--smoke", "--device", "cpu", "--shape", "0.6b", "--out",
                            str(tmp_path)]) == 0
    values = values_of(tmp_path, "throughput")
    for key in ("rate", "alone_rate", "passes", "kv_peak", "warm_up", "bandwidth_share",
                "decode_step", "prefill_step", "forward_share"):
        assert f"qwen3_06b_{key}" in values
    assert values["qwen3_06b_done"]["value"] == 1
    steps = sum(values[f"qwen3_06b_{kind}_steps"]["value"] for kind in ("decode", "prefill"))
    assert 0 < steps <= values["qwen3_06b_passes"]["value"]
    both = sum(values[f"qwen3_06b_{kind}_time"]["value"] for kind in ("decode", "prefill"))
    assert both <= values["qwen3_06b_time"]["value"]


def test_steps_are_told_apart_by_what_they_computed() -> None:
    def moment(now: float, computed: int, sampled: int) -> throughput.Moment:
        return throughput.Moment(now, computed, sampled, 0.0, 0.0, sampled)

    found = throughput.phases([moment(0, 0, 0), moment(1, 100, 2), moment(1.5, 102, 4),
                               moment(1.75, 102, 4), moment(2.5, 140, 7)])
    assert found == {"prefill": [(1, 100), (0.75, 38)], "decode": [(0.5, 2)]}


def test_the_budget_of_a_step_is_at_least_2048(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        throughput.main(["--smoke", "--device", "cpu", "--budget", "512"])
    assert "at least 2048" in capsys.readouterr().err


def test_kernels_that_overlap_count_once() -> None:
    events = [("a", 0.0, 2.0), ("b", 1.0, 3.0), ("a", 5.0, 6.0)]
    assert throughput.covered_us([(start, end) for _, start, end in events]) == 4
    assert throughput.covered_us([]) == 0
    assert throughput.by_kernel(events, 2) == [("a", 1.0, pytest.approx(1.5e-6)),
                                               ("b", 0.5, pytest.approx(1e-6))]


def test_without_a_gpu_they_say_what_measures_here(capsys: pytest.CaptureFixture[str]) -> None:
    for program in (decode_speed, throughput):
        with pytest.raises(SystemExit):
            program.main(["--device", "cpu"])
        assert "infero bench" in capsys.readouterr().err
