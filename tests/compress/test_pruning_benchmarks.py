"""The programs that measure what zeros buy and cost, at tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import pruning, sparsity


def data_of(folder: Path, name: str) -> dict:
    (path,) = folder.glob(f"*/{name}.json")
    return json.loads(path.read_text())


def test_sparsity_measures_products_and_engines(tmp_path: Path) -> None:
    assert sparsity.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    data = data_of(tmp_path, "sparsity")
    kinds = [row[0] for row in data["tables"]["engine"]["rows"]]
    assert kinds == ["dense", "two_of_four", "fewer_layers", "fewer_neurons", "zeros"]
    size = {row[0]: row[1] for row in data["tables"]["bytes"]["rows"]}
    assert size["dense"] == size["zeros"] == size["cutlass"] * 16 // 9
    values = data["values"]
    assert values["two_of_four_bytes"]["value"] < values["zeros_bytes"]["value"]
    assert values["gain_qkv_m1"]["value"] > 0


@pytest.mark.parametrize("part", pruning.PARTS)
def test_pruning_scores_every_model(part: str, tmp_path: Path) -> None:
    assert pruning.main(["--smoke", "--device", "cpu", "--only", part, "--out", str(tmp_path)]) == 0
    data = data_of(tmp_path, "pruning")
    tables = {"zeros": ["zeros"], "layers": ["influence", "dropped"], "width": ["width"]}[part]
    for name in tables:
        columns = [c["name"] for c in data["tables"][name]["columns"]]
        for row in data["tables"][name]["rows"]:
            found = dict(zip(columns, row, strict=True))
            assert found["kl"] >= 0 and 0 <= found["top1"] <= 1
