"""The number-line explorer: its grids and errors are infero's, and it can be worked by keyboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from infero.quant import blocks, floats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

OUTLIERS = [None, 3.3, 7.0, 25.0, 121.0, 300.0, -40.0]


@pytest.fixture
def page(page: Any) -> Any:
    page.goto("/numberline.html")
    page.wait_for_selector('[data-ready="true"]')
    return page


def test_the_table_has_a_row_for_each_outlier() -> None:
    program = explorers.program("numberline")
    table = program.fallback()
    assert table.count("<tr>") == 1 + len(program.OUTLIERS)
    assert "<caption>" in table and "nan" not in table
    found = {o: program.errors(program.sample(), o) for o in (None, 100.0)}
    assert found[None]["int8"][0] < found[None]["e4m3"][0], "evenly spaced is better for alike"
    assert found[100.0]["int8"][0] > 5 * found[100.0]["e4m3"][0], "an outlier hurts it"


def test_the_sample_is_normal() -> None:
    sample = torch.tensor(explorers.program("numberline").sample())
    assert abs(float(sample.std()) - 1) < 0.02 and abs(float(sample.mean())) < 0.3
    assert len(set(sample.tolist())) > 50


@pytest.mark.browser
def test_grids_are_the_formats(page: Any) -> None:
    got = page.evaluate(
        """async (nf4) => { const m = await import("./numberline.js"); return m.grids(nf4); }""",
        list(blocks.nf4_levels()))
    codes = torch.arange(127, dtype=torch.uint8)
    e4m3 = floats.from_e4m3(codes).double()
    e5m2 = floats.from_e5m2(codes[:124]).double()
    for name, numbers, top in (("e4m3", e4m3, 448.0), ("e5m2", e5m2, 57344.0)):
        want = torch.cat((-numbers[1:].flip(0), numbers)) / top
        assert torch.equal(torch.tensor(got[name], dtype=torch.float64), want)
    assert got["int8"] == [k / 127 for k in range(-127, 128)]
    assert got["int4"] == [k / 7 for k in range(-7, 8)]
    assert len(got["nf4"]) == 16


@pytest.mark.browser
def test_errors_are_inferos(page: Any) -> None:
    program = explorers.program("numberline")
    g = torch.Generator().manual_seed(1)
    samples = [program.sample(), torch.randn(40, generator=g).tolist(),
               (torch.rand(25, generator=g) * 0.01).tolist()]
    got = page.evaluate(
        """async ([samples, outliers, nf4]) => {
          const m = await import("./numberline.js");
          const all = Object.entries(m.grids(nf4));
          return samples.map((s) => outliers.map((o) => Object.fromEntries(
            all.map(([key, grid]) => [key, m.judge(s, o, grid)]))));
        }""",
        [samples, OUTLIERS, list(blocks.nf4_levels())])
    for sample, rows in zip(samples, got, strict=True):
        for outlier, row in zip(OUTLIERS, rows, strict=True):
            for kind, (error, lost) in program.errors(sample, outlier).items():
                assert row[kind]["error"] == pytest.approx(error, rel=2e-3), (kind, outlier)
                assert abs(row[kind]["lost"] - lost) <= (0 if kind == "int8" else 1)


@pytest.mark.browser
def test_slider_and_view(page: Any) -> None:
    words = "p[aria-live]"
    assert "Without an outlier" in page.inner_text(words)
    assert "int8." in page.inner_text(words)
    page.focus("#numberline-outlier")
    page.keyboard.press("End")
    assert "300 σ" in page.inner_text(words)
    best = page.inner_text(words).split("least error has")[1]
    assert "E4M3" in best or "E5M2" in best
    assert page.inner_text(words) == page.get_attribute("svg", "aria-label")
    assert "outlier=100" in page.url
    page.select_option("#numberline-view", "all")
    assert "view=all" in page.url
    page.keyboard.press("Home")


@pytest.mark.browser
def test_the_address_is_kept_and_nonsense_ignored(page: Any) -> None:
    page.goto("/numberline.html#numberline?outlier=50&view=zero")
    page.reload()
    page.wait_for_selector('[data-ready="true"]')
    assert page.input_value("#numberline-outlier") == "50"
    assert page.input_value("#numberline-view") == "zero"
    for value in ("outlier=999", "outlier=x", "view=nowhere"):
        page.goto(f"/numberline.html#numberline?{value}")
        page.reload()
        page.wait_for_selector('[data-ready="true"]')
        assert page.input_value("#numberline-outlier") == "0"
        assert page.input_value("#numberline-view") == "near"
