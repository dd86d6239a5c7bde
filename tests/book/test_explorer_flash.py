"""The FlashAttention explorer: its arithmetic is the engine's, its bytes the formula's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from infero.kernels.steps import attention, attention_io

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    found: dict[str, Any] = explorers.program("flash").data()
    return found


@pytest.fixture
def page(page: Any) -> Any:
    page.goto("/flash.html")
    page.wait_for_selector('[data-ready="true"]')
    return page


def test_the_data_are_the_same_each_time(data: dict[str, Any]) -> None:
    assert explorers.program("flash").data() == data
    assert len(data["q"]) == max(data["lengths"])


def test_the_table_has_every_setting(data: dict[str, Any]) -> None:
    table = explorers.program("flash").fallback()
    assert table.count("<tr>") == len(data["lengths"]) * len(data["tiles"]) + 1
    assert "<caption>" in table
    assert 'scope="row"' in table


@pytest.mark.browser
def test_tiles_and_bytes_equal_the_formula(page: Any, data: dict[str, Any]) -> None:
    cases = [[n, rows, keys] for n in (*data["lengths"], 37) for rows in data["tiles"]
             for keys in data["tiles"]]
    got = page.evaluate(
        """async ([cases, dim, width]) => {
          const m = await import("./flash.js");
          return cases.map(([n, rows, keys]) => {
            const order = m.tilesOf(n, rows, keys);
            return [order, m.movedAfter(order.length, n, rows, keys, dim, width),
              m.naiveBytes(n, dim, width)];
          });
        }""", [cases, data["dim"], data["width"]])
    for (n, rows, keys), (order, moved, naive) in zip(cases, got, strict=True):
        assert [tuple(tile) for tile in order] == attention_io.tiles(n, n, rows, keys)
        want = attention_io.flash_traffic(n, n, data["dim"], rows, keys, data["width"])
        assert (moved["read"], moved["written"]) == (want.read, want.written)
        assert naive == attention_io.naive_traffic(n, n, data["dim"], data["width"]).total


@pytest.mark.browser
def test_the_walk_equals_blockwise(page: Any, data: dict[str, Any]) -> None:
    q, k, v = (torch.tensor(data[name]) for name in "qkv")
    for query, n, rows, keys in ((44, 48, 16, 8), (0, 16, 4, 4), (63, 64, 8, 16), (30, 48, 16, 16)):
        got = page.evaluate(
            """async (args) => {
              const m = await import("./flash.js");
              const data = await (await fetch("./flash.json")).json();
              return m.walk(data, ...args);
            }""", [query, n, rows, keys])
        for step in got:
            seen = min(step["start"] + keys, query + 1)  # what the mask leaves
            out, lse = attention.blockwise(q[query][None], k[:seen], v[:seen], data["scale"], keys)
            mine = torch.tensor(step["acc"]) / step["total"]
            torch.testing.assert_close(mine, out[0], atol=1e-5, rtol=1e-5)
            lse_mine = torch.tensor(step["m"]) + torch.tensor(step["total"]).log()
            torch.testing.assert_close(lse_mine, lse[0], atol=1e-5, rtol=1e-5)


@pytest.mark.browser
def test_steps_by_mouse_and_keys(page: Any) -> None:
    words = "p[aria-live]"
    before = page.inner_text(words)
    page.click('button[aria-label="One tile forward"]')
    assert page.inner_text(words) != before
    page.focus("#flash-rows")
    page.keyboard.press("Home")
    assert "of 42 tiles" in page.inner_text(words)  # 48 tokens, tiles of 4 by 8
    page.focus("#flash-step")
    page.keyboard.press("End")
    assert page.is_disabled('button[aria-label="One tile forward"]')
    assert "42 of 42" in page.inner_text(words)
    page.click('button[aria-label="Back to the beginning"]')
    assert page.is_disabled('button[aria-label="One tile back"]')
    assert "has not begun" in page.inner_text(words)
    assert "step=0" in page.url


@pytest.mark.browser
def test_it_plays_only_when_asked_and_can_be_paused(page: Any) -> None:
    page.clock.install()
    page.goto("/flash.html#flash?n=48&rows=16&keys=8&query=44&step=7")
    page.reload()
    page.wait_for_selector('[data-ready="true"]')
    page.clock.run_for(20_000)
    assert page.input_value("#flash-step") == "7", "nothing moves unasked"
    page.click('button[aria-label="Play the walk"]')
    page.clock.run_for(3_000)
    assert page.input_value("#flash-step") == "9"
    page.click('button[aria-label="Pause the walk"]')
    page.clock.run_for(20_000)
    assert page.input_value("#flash-step") == "9"


@pytest.mark.browser
def test_a_strange_address_does_no_harm(page: Any) -> None:
    for query in ("n=7", "n=16&query=900", "rows=x&step=1e9", "query=-4&step=2.5"):
        page.goto(f"/flash.html#flash?{query}")
        page.reload()
        page.wait_for_selector('[data-ready="true"]')
        assert page.inner_text("p[aria-live]").endswith(".")
