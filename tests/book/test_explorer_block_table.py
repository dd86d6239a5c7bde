"""The block table explorer: its trace is the engine's, its drawing agrees, it can be paused."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from infero.cache import pool
from infero.cache.pool import BlockPool

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    found: dict[str, Any] = explorers.program("block_table").data()
    return found


@pytest.fixture
def page(page: Any) -> Any:
    page.goto("/block_table.html")
    page.wait_for_selector('[data-ready="true"]')
    return page


# ---------------------------------------------------------------- the trace


def test_the_trace_is_the_same_each_time(data: dict[str, Any]) -> None:
    again = explorers.program("block_table")
    assert again.data.__wrapped__() == data


def test_every_frame_is_sound(data: dict[str, Any]) -> None:
    for frame in data["frames"]:
        state = BlockPool(data["num_blocks"], data["block_size"])
        state.ref_count = frame["refs"]
        state.free = type(state.free).fromkeys(frame["free"])
        for block, name in enumerate(frame["names"]):
            if name:
                state.hash_of[block] = name.encode()
                state.block_of[name.encode()] = block
        pool.check_integrity(state, frame["tables"].values())
        assert frame["words"]
        assert all(word.endswith(".") for word in frame["words"])


def test_the_run_shows_what_the_chapter_tells(data: dict[str, Any]) -> None:
    frames = data["frames"]
    words = " ".join(word for frame in frames for word in frame["words"])
    assert any(max(frame["refs"]) >= 2 for frame in frames), "a shared prefix"
    assert any(copy["kind"] == "cow" for frame in frames for copy in frame["copies"])
    assert any(frame["preempted"] for frame in frames)
    assert "forgotten" in words, "an eviction"
    assert "starts again" in words, "a preempted request that finds its blocks"
    free_hit = [  # a hit on a prefix that nobody owned at that moment
        (before, frame) for before, frame in itertools.pairwise(frames)
        for id in frame["hits"] if set(frame["tables"][id][:1]) <= set(before["free"])]
    assert free_hit
    assert not frames[-1]["tables"]
    assert not frames[-1]["waiting"]


def test_the_table_tells_every_step(data: dict[str, Any]) -> None:
    table = explorers.program("block_table").fallback()
    assert table.count("<tr>") == len(data["frames"]) + 1
    assert "<caption>" in table
    assert 'scope="row"' in table
    assert "Copy-on-write" in table


# ---------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_slots_equal_the_engine(page: Any) -> None:
    draw = random.Random(5)
    cases = []
    for _ in range(60):
        size, start, n = draw.choice((1, 3, 4, 16)), draw.randrange(40), draw.randrange(30)
        table = draw.sample(range(200), (start + n) // size + 1)
        cases.append([table, start, n, size])
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./block_table.js");
          return cases.map((c) => m.slotsOf(...c));
        }""",
        cases,
    )
    assert got == [pool.slots_of(*case) for case in cases]


@pytest.mark.browser
def test_owners_and_tokens_equal_the_engine(page: Any, data: dict[str, Any]) -> None:
    got = page.evaluate(
        """async () => {
          const m = await import("./block_table.js");
          const data = await (await fetch("./block_table.json")).json();
          return data.frames.map((f) => [m.owners(f, data.num_blocks).map((ids) => ids.length),
            m.filled(f, data.num_blocks, data.block_size), m.problems(f, data.num_blocks)]);
        }"""
    )
    size = data["block_size"]
    for frame, (refs, filled, problems) in zip(data["frames"], got, strict=True):
        assert refs == frame["refs"]
        assert problems == []
        want = [size if named else 0 for named in frame["named"]]
        for id, table in frame["tables"].items():
            for i, block in enumerate(table):
                want[block] = max(want[block], min(size, max(0, frame["tokens"][id] - i * size)))
        assert filled == want


@pytest.mark.browser
def test_steps_by_mouse_and_keys(page: Any, data: dict[str, Any]) -> None:
    last = len(data["frames"]) - 1
    words = "p[aria-live]"
    assert data["frames"][0]["words"][0] in page.inner_text(words)
    page.click('button[aria-label="One step forward"]')
    assert data["frames"][1]["words"][0] in page.inner_text(words)
    label = page.get_attribute("svg", "aria-label")
    page.focus("#block_table-step")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("svg", "aria-label") != label
    assert data["frames"][2]["words"][0] in page.inner_text(words)
    page.keyboard.press("End")
    assert data["frames"][last]["words"][0] in page.inner_text(words)
    assert page.is_disabled('button[aria-label="One step forward"]')
    assert f"step={last}" in page.url
    page.click('button[aria-label="Back to the beginning"]')
    assert page.input_value("#block_table-step") == "0"


@pytest.mark.browser
def test_it_plays_only_when_asked_and_can_be_paused(page: Any) -> None:
    page.clock.install()
    page.goto("/block_table.html#block_table?step=3")
    page.reload()
    page.wait_for_selector('[data-ready="true"]')
    page.clock.run_for(20_000)
    assert page.input_value("#block_table-step") == "3", "nothing moves unasked"
    page.click('button[aria-label="Play the run"]')
    page.clock.run_for(6_000)
    assert page.input_value("#block_table-step") == "5"
    page.click('button[aria-label="Pause the run"]')
    page.clock.run_for(20_000)
    assert page.input_value("#block_table-step") == "5"


@pytest.mark.browser
def test_an_address_that_is_not_a_step_starts_at_the_beginning(page: Any) -> None:
    for value in ("999", "-1", "x", "1.5"):
        page.goto(f"/block_table.html#block_table?step={value}")
        page.reload()
        page.wait_for_selector('[data-ready="true"]')
        assert page.input_value("#block_table-step") == "0"
