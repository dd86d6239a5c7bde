"""The `{hardware-table}` directive: its cells are the numbers of infero.hardware, scaled."""

from __future__ import annotations

import sys
from pathlib import Path

from infero import hardware

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book" / "_ext"))


def test_cells_of_a_card_with_everything_and_of_one_without() -> None:
    from infero_book import devices

    row = dict(zip(devices.HEADS[1:], devices.cells(hardware.DEVICES["h100"]), strict=True))
    assert row["reads GB/s"] == "3,350" and row["16-bit TFLOP/s"] == "989"
    assert row["ridge flop/B"] == "295" and row["cache MiB"] == "50"
    assert row["8-bit TFLOP/s"] == "1,979" and row["link GB/s"] == "900"
    tpu = dict(zip(devices.HEADS[1:], devices.cells(hardware.DEVICES["tpu-v5p"]), strict=True))
    assert tpu["8-bit TFLOP/s"] == tpu["power W"] == tpu["cache MiB"] == "–"
    old = dict(zip(devices.HEADS[1:], devices.cells(hardware.DEVICES["t4"]), strict=True))
    assert old["16-bit TFLOP/s"] == "65"  # fp16: it has no bf16
