"""Evidence: what `infero.results` writes, reads, refuses and shows."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

from infero import provenance, results, units

NBSP = "\N{NO-BREAK SPACE}"


def document(name: str = "limits", slug: str = "h100") -> dict:
    return {
        "schema": 1, "name": name,
        "device": {"slug": slug, "kind": "cuda", "name": f"NVIDIA {slug.upper()}",
                   "driver": "580.1", "memory_bytes": 80 * 10**9, "cores": 132},
        "software": {"python": "3.12.1", "torch": "2.11.0", "triton": None, "infero": "0.1.0"},
        "commit": "abc", "date": "2026-11-21T09:00:00+00:00",
        "command": f"python -m benchmarks.{name}",
        "values": {
            "copy_bandwidth": {"value": 3.032e12, "unit": "byte/s", "n": 50, "spread": 0.004,
                               "note": ""}
        },
        "tables": {"sweep": {"columns": [{"name": "batch", "unit": ""},
                                         {"name": "time", "unit": "s"}],
                             "rows": [[1, 0.5], [2, 0.75]]}},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty results folder that `infero.results` reads and writes."""
    monkeypatch.setenv("INFERO_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def put(folder: Path, data: dict) -> None:
    path = folder / data["device"].get("slug", "h100") / f"{data['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_a_value_is_read_with_its_provenance(folder: Path) -> None:
    put(folder, document())
    value = results.get("h100/limits/copy_bandwidth")
    assert (value.value, value.unit, value.n, value.spread) == (3.032e12, "byte/s", 50, 0.004)
    assert value.text == f"3,032{NBSP}GB/s"
    assert value.label == "NVIDIA H100, 2026-11-21"
    assert results.get("h100/limits/@device").text == "NVIDIA H100"
    assert results.get("h100/limits/@triton").text == "none"


def test_gpu_means_the_first_card_present(folder: Path) -> None:
    put(folder, document(slug="h200"))
    assert results.get("gpu/limits/@device").text == "NVIDIA H200"
    put(folder, document(slug="h100"))
    assert results.get("gpu/limits/@device").text == "NVIDIA H100"
    put(folder, document(slug="amd-epyc-2c"))
    assert results.devices() == ["h100", "h200", "amd-epyc-2c"]


def test_a_table_is_read_by_column(folder: Path) -> None:
    put(folder, document())
    table = results.table("h100/limits/sweep")
    assert table.column("time") == [0.5, 0.75]
    assert table.records()[1] == {"batch": 2, "time": 0.75}
    with pytest.raises(results.ResultMissing, match="batch, time"):
        table.column("tiem")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("h100/limits/copy_bandwith", "copy_bandwidth"),
        ("h100/limit/copy_bandwidth", "h100/limits"),
        ("h100/limits/@colour", "@driver"),
        ("h100/limits", "device/name/value"),
        ("a100/limits/copy_bandwidth", "python -m benchmarks.limits|make gpu"),
    ],
)
def test_a_missing_key_names_what_is_near(folder: Path, key: str, words: str) -> None:
    put(folder, document())
    with pytest.raises(results.ResultMissing, match=words) as caught:
        results.get(key)
    assert isinstance(caught.value, LookupError)
    assert str(caught.value).endswith(".")  # the sentence itself, not a KeyError's quotation of it


def test_what_is_recorded_is_what_is_read(folder: Path) -> None:
    with results.record("limits", argv=["--device", "cpu", "--out", "x"], device="cpu") as r:
        r.value("copy_bandwidth", [4e9, 1e9, 2e9, 3e9, 5e9], unit="byte/s", note="five copies")
        r.value("threads", 2, unit="")
        r.table("sweep", columns=[("batch", ""), ("time", "s")], rows=[(1, 0.5), (2, None)])
    (path,) = folder.glob("*/limits.json")
    value = results.get(f"{path.parent.name}/limits/copy_bandwidth")
    assert (value.value, value.n) == (3e9, 5)
    assert value.spread == pytest.approx(2 / 3)
    assert value.note == "five copies"
    assert results.table(f"{path.parent.name}/limits/sweep").rows == [[1, 0.5], [2, None]]
    facts = results.provenance(f"{path.parent.name}/limits/threads")
    assert facts["command"] == "python -m benchmarks.limits --device cpu"
    assert facts["device"]["kind"] == "cpu"


def test_out_names_another_folder(folder: Path, tmp_path: Path) -> None:
    with results.record("limits", argv=[], out=tmp_path / "other", device="cpu") as r:
        r.value("x", 1.0, unit="s")
    assert not folder.exists()
    assert len(list((tmp_path / "other").glob("*/limits.json"))) == 1


def test_a_failed_program_leaves_the_old_file(folder: Path) -> None:
    with results.record("limits", argv=[], device="cpu") as r:
        r.value("x", 1.0, unit="s")
    (path,) = folder.glob("*/limits.json")
    before = path.read_bytes()

    def fails() -> None:
        with results.record("limits", argv=[], device="cpu") as r:
            r.value("x", 2.0, unit="s")
            raise RuntimeError("the card fell out")

    with pytest.raises(RuntimeError, match="fell out"):
        fails()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["limits.json"]


@pytest.mark.parametrize("unit", ["GB/s", "ms", "µs", "TFLOP/s", "%", "MiB", "tokens/s"])
def test_scaled_units_are_refused(folder: Path, unit: str) -> None:
    with pytest.raises(units.UnitError, match="base units"), results.record("limits", argv=[]) as r:
        r.value("x", 1.0, unit=unit)
    assert not folder.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), []])
def test_values_that_are_no_numbers_are_refused(folder: Path, bad: object) -> None:
    with pytest.raises(results.ResultInvalid), results.record("limits", argv=[], device="cpu") as r:
        r.value("x", bad, unit="s")  # type: ignore[arg-type]
    assert not list(folder.glob("*/*.json"))


def _changed(path: str, value: object) -> dict:
    data = copy.deepcopy(document())
    *parents, last = path.split("/")
    spot = data
    for part in parents:
        spot = spot[part]
    if value is KeyError:
        del spot[last]
    else:
        spot[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 0), ("schema", 2), ("extra", 1), ("values", KeyError), ("device/slug", KeyError),
        ("device/kind", "tpu"), ("device/cores", "many"), ("date", "yesterday"), ("commit", None),
        ("command", "vi results/h100/limits.json"), ("software/torch", None),
        ("values/copy_bandwidth/unit", "GB/s"), ("values/copy_bandwidth/value", "3"),
        ("values/copy_bandwidth/value", True), ("values/copy_bandwidth/value", float("nan")),
        ("values/copy_bandwidth/n", 0), ("values/copy_bandwidth/spread", KeyError),
        ("values/a key", {"value": 1, "unit": "", "n": 1, "spread": None, "note": ""}),
        ("tables/sweep/rows", [[1]]), ("tables/sweep/rows", [[1, [2]]]),
        ("tables/sweep/columns", ["batch", "time"]), ("tables/sweep/rows", [[1, float("inf")]]),
    ],
)  # fmt: skip
def test_a_file_off_the_schema_is_refused(folder: Path, path: str, value: object) -> None:
    put(folder, _changed(path, value))
    with pytest.raises((results.ResultInvalid, units.UnitError)):
        results.load("h100", "limits")


def test_a_broken_file_is_named(folder: Path) -> None:
    put(folder, document())
    (folder / "h100" / "limits.json").write_text("{", encoding="utf-8")
    with pytest.raises(results.ResultInvalid, match=r"limits\.json"):
        results.load("h100", "limits")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.032e12, "byte/s", "3,032 GB/s"), (2.5e10, "byte/s", "25 GB/s"),
        (9.9e14, "flop/s", "990 TFLOP/s"), (0.0123, "s", "12.3 ms"), (4.2e-6, "s", "4.2 µs"),
        (1500.0, "s", "1,500 s"), (44.04, "token/s", "44 tokens/s"), (0.5, "J", "500 mJ"),
        (132, "", "132"), (0.0, "s", "0 s"), (8.5e10, "byte", "85 GB"), (700.0, "W", "700 W"),
        (295.2, "flop/byte", "295 flop/byte"), (0.123456, "", "0.123"), (-0.002, "s", "-2 ms"),
    ],
)  # fmt: skip
def test_rendering(value: float, unit: str, text: str) -> None:
    assert results.render(value, unit) == text.replace(" ", NBSP)


def test_rendering_in_a_unit_and_format_asked_for() -> None:
    assert results.render(3.032e12, "byte/s", "TB/s", ".2f") == f"3.03{NBSP}TB/s"
    assert results.render(52_428_800, "byte", "MiB", ".0f") == f"50{NBSP}MiB"
    assert results.render(0.873, "", "%", ".0f") == "87%"
    with pytest.raises(units.UnitError, match="cannot be shown"):
        results.render(1.0, "s", "GB/s")


@pytest.mark.parametrize(
    ("name", "cores", "slug"),
    [
        ("NVIDIA H100 80GB HBM3", None, "h100"), ("NVIDIA H200", None, "h200"),
        ("NVIDIA H100 PCIe", None, "h100-pcie"), ("NVIDIA A100-SXM4-80GB", None, "a100"),
        ("Tesla T4", None, "t4"), ("NVIDIA GeForce RTX 4090", None, "rtx-4090"),
        ("AMD EPYC", 2, "amd-epyc-2c"), ("Intel(R) Xeon(R) CPU @ 2.20GHz", 4, "intel-xeon-4c"),
        ("", None, "device"),
    ],
)  # fmt: skip
def test_device_slugs(name: str, cores: int | None, slug: str) -> None:
    assert provenance.slug(name, cores) == slug


def test_reading_results_needs_no_torch() -> None:
    import subprocess

    code = "import sys, infero.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
