"""The table of devices: complete, sourced, dense, and matched to the names drivers give."""

from __future__ import annotations

import pytest

from infero import hardware
from infero.errors import ParameterError
from infero.hardware import DEVICES


@pytest.mark.parametrize("row", DEVICES.values(), ids=list(DEVICES))
def test_rows_are_complete_and_plausible(row: hardware.Device) -> None:
    assert row.source and row.url.startswith("https://") and row.date.isdecimal()
    assert 8e9 < row.memory_bytes < 1e12 and 1e11 < row.bandwidth_bytes_per_s < 2e13
    peak = row.peak_flops_per_s.get("bf16", row.peak_flops_per_s.get("fp16", 0.0))
    assert 30 < peak / row.bandwidth_bytes_per_s < 1000  # a ridge; twice as high if sparse
    for smaller in {"fp8", "int8"} & set(row.peak_flops_per_s):
        assert row.peak_flops_per_s[smaller] / peak == pytest.approx(2, rel=0.01) or (
            row.slug == "rtx4090" and smaller == "int8"
        )
    assert row.link_bytes_per_s and row.evidence == "datasheet"


def test_a_missing_format_is_named() -> None:
    with pytest.raises(ParameterError, match=r"'fp8'.*it has bf16"):
        DEVICES["a100-80"].peak("fp8")
    h100 = DEVICES["h100"]
    assert h100.ridge("fp8") == pytest.approx(2 * h100.ridge("bf16"), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "slug"),
    [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("Tesla T4", "t4"),
     ("NVIDIA L4", "l4"), ("NVIDIA A10", "a10"), ("NVIDIA A100-SXM4-40GB", "a100-40"),
     ("NVIDIA A100-SXM4-80GB", "a100-80"), ("NVIDIA GeForce RTX 4090", "rtx4090"),
     ("NVIDIA B200", "b200"), ("AMD Instinct MI300X", "mi300x"), ("NVIDIA H100 PCIe", None),
     ("NVIDIA A10G", None), ("NVIDIA L40S", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
     ("NVIDIA H100 NVL", None), ("NVIDIA GeForce GTX 1650", None)],
)
def test_driver_names(name: str, slug: str | None) -> None:
    found = hardware.match(name)
    assert (found.slug if found else None) == slug


def test_lookups() -> None:
    assert hardware.device("A100-80GB") is DEVICES["a100-80"]
    assert hardware.resolve("h100:datasheet") is DEVICES["h100"]
    assert hardware.resolve(DEVICES["t4"]) is DEVICES["t4"]
    assert hardware.resolve("gpu").slug in ("h100", "h200")
    with pytest.raises(ParameterError, match="known devices: t4, l4"):
        hardware.device("h1000")


def test_measured_limits_are_below_the_datasheet() -> None:
    row = hardware.measured("h100")
    assert row.slug == "h100"
    if row.evidence == "measured":
        assert 0.8 < row.bandwidth_bytes_per_s / DEVICES["h100"].bandwidth_bytes_per_s < 1
        assert 0.5 < row.peak("bf16") / DEVICES["h100"].peak("bf16") < 1
        assert row.peak("fp8") > row.peak("bf16")
    assert hardware.measured("tpu-v5e") is DEVICES["tpu-v5e"]


def test_this_processor() -> None:
    cpu = hardware.measure_cpu(0.2)
    assert cpu.kind == "cpu" and cpu.evidence == "measured"
    assert 1e8 < cpu.bandwidth_bytes_per_s < 1e13
    assert 1e8 < cpu.peak("fp32") < 1e15 and cpu.peak("bf16") > 0
    assert hardware.measure_cpu(0.2) is cpu  # measured once
