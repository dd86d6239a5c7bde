"""The program that compares methods: its rows, its sizes, and what it says of expectations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import quality, quality_cases
from benchmarks.chapter01 import SMOKE
from infero.kernels import formats
from infero.model import random_model
from infero.quant import quantizer


def measured(folder: Path, *args: str) -> tuple[dict[str, dict], dict[str, dict]]:
    """(values, rows by name) of a small run."""
    assert quality.main(["--smoke", "--device", "cpu", "--out", str(folder), *args]) == 0
    (path,) = folder.glob("*/quality.json")
    data = json.loads(path.read_text())
    names = [c["name"] for c in data["tables"]["methods"]["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in data["tables"]["methods"]["rows"]]
    return data["values"], {row["name"]: row for row in rows}


def test_rows_and_values_agree(tmp_path: Path) -> None:
    names = ["int8", "w8a8", "rtn4_g64", "gptq3_ch", "q4_1"]
    values, rows = measured(tmp_path, "--only", *names)
    assert list(rows) == [n for n in (c.name for c in quality.CASES) if n in names]
    for name, row in rows.items():
        for what in ("perplexity", "kl", "top1", "bytes", "bits_a_weight", "perplexity_ratio"):
            assert values[f"{name}_{what}"]["value"] == row[what]
        assert row["task"] is None  # random weights have no tokenizer
    assert rows["int8"]["kl"] < rows["rtn4_g64"]["kl"] < rows["gptq3_ch"]["kl"]
    assert (rows["rtn4_g64"]["bits_a_weight"], rows["rtn4_g64"]["group"]) == (4.25, "64")
    assert 3 < rows["gptq3_ch"]["bits_a_weight"] < 3.3 and rows["gptq3_ch"]["group"] == "row"
    assert rows["w8a8"]["activations"] == "8" and rows["w8a8"]["format"] == "w8a8"
    assert values["base_bytes"]["value"] > rows["int8"]["bytes"] > rows["rtn4_g64"]["bytes"]


def test_processes_measure_what_one_measures(tmp_path: Path) -> None:
    names = ["--only", "int8_tensor", "rtn4_g64", "nf4"]
    alone, rows = measured(tmp_path / "one", *names)
    shared, same = measured(tmp_path / "two", "--processes", "2", *names)
    assert list(rows) == list(same) and alone.keys() == shared.keys()
    for key in alone:
        if not key.endswith("seconds"):
            assert shared[key]["value"] == pytest.approx(alone[key]["value"], rel=1e-4, abs=1e-7)


def test_a_method_that_fails_costs_only_itself(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    right = quality.made

    def wrong(case: quality.Case, *rest: object) -> object:
        if case.name == "int8":
            raise RuntimeError("no such kernel")
        return right(case, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(quality, "made", wrong)
    args = ["--smoke", "--device", "cpu", "--out", str(tmp_path), "--only", "int8", "fp8"]
    assert quality.main(args) == 1
    (path,) = tmp_path.glob("*/quality.json")
    assert "fp8_kl" in path.read_text() and "int8_kl" not in path.read_text()


def test_every_line_can_be_asked_for() -> None:
    assert len({case.name for case in quality.CASES}) == len(quality.CASES)
    for case in quality.CASES:
        assert bool(case.settings) != (case.change is not None), case.name
        if case.settings and case.settings["method"] in quantizer.METHODS:
            assert quantizer.Settings(**case.settings).bits == int(case.bits)


def test_sizes() -> None:
    model = random_model(SMOKE)
    numbers = sum(getattr(layer, n).numel() for layer in model.layers for n in quality.MATRICES)
    stored = next(case for case in quality.CASES if case.name == "q4_1")
    bits, read = quality.size(stored, model)
    assert bits == 5 and read == numbers * 5 / 8 + model.head.numel() * 34 / 32
    row = next(case for case in quality.CASES if case.name == "int8")
    small = formats.quantize_model(model, "int8")
    bits, read = quality.size(row, small)
    rows = sum(w.shape[0] for layer in small.layers for w in (layer.qkv, layer.o, layer.gate_up,
                                                             layer.down))
    assert read == numbers + 4 * rows + model.head.numel() + 4 * model.head.shape[0]
    assert bits == pytest.approx(8 + 32 * rows / numbers)


def test_fp8_on_both_sides() -> None:
    weight, x = torch.randn(24, 64), torch.randn(5, 64)
    got = quality_cases.BothFp8(weight).multiply(x)
    want = x @ weight.T
    assert 0.005 < float((got - want).norm() / want.norm()) < 0.06
    assert bool(quality_cases.BothFp8(weight).multiply(torch.zeros(2, 64)).eq(0).all())


def test_verdicts() -> None:
    rows = {"int8": {"perplexity_ratio": 1.004}, "rtn4_g64": {"kl": 0.2, "perplexity": 30.0},
            "gptq4_g64": {"kl": 0.1, "perplexity": 28.0}, "awq4_g64": {"kl": 0.3, "perplexity": 28}}
    words = quality.verdicts(rows)
    assert [w.split()[0] for w in words] == ["holds", "holds", "FAILS"]
    assert "awq4_g64 beats rtn4_g64" in words[2]
