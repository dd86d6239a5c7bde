"""The timeline page in a real browser: it replays the engine's block tables, by mouse and keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infero import cli_trace, timeline_html
from infero.timeline import Run

pytestmark = pytest.mark.browser
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def run() -> Run:
    return cli_trace.demonstration()


@pytest.fixture(scope="module")
def address(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "timeline.html"
    timeline_html.write(run, path)
    return path.as_uri()


@pytest.fixture(params=SCHEMES)
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(color_scheme=request.param, reduced_motion="reduce",
                                  viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda r: problems.append(r.url))
    page.goto(address)
    page.wait_for_function("window.timeline !== undefined")
    yield page
    assert problems == []
    context.close()


def test_every_step_shows_the_engines_block_tables(page: Any, run: Run) -> None:
    ids = page.evaluate("timeline.data.requests.map((r) => r.id)")
    order = [*range(len(run.steps)), 3, 40, 0]  # forwards, then jumps in both directions
    shown = page.evaluate(
        "(order) => order.map((i) => [...timeline.tablesAt(i).tables].map(([r, t]) => [r, t]))",
        order)
    for index, tables in zip(order, shown, strict=True):
        held = {ids[r]: table for r, table in tables}
        for entry in run.steps[index].entries:
            assert held[entry["id"]] == entry["blocks"], f"step {index}"


def test_the_step_is_told_in_words(page: Any, run: Run) -> None:
    page.evaluate("timeline.show(0)")
    text = page.inner_text("#facts")
    tokens = sum(entry["n"] for entry in run.steps[0].entries)
    assert f"Step 0: {tokens} tokens of {len(run.steps[0].entries)} requests" in text
    rows = page.locator("#batch tbody tr")
    assert rows.count() == len(run.steps[0].entries)
    assert run.steps[0].entries[0]["id"] in rows.first.inner_text()
    index = next(i for i, step in enumerate(run.steps) if step.preempted)
    page.evaluate(f"timeline.show({index})")
    assert f"Preempted: {run.steps[index].preempted[0]}" in page.inner_text("#facts")
    assert "in use" in page.inner_text("#map-note")


def test_keys_and_buttons_walk_through_the_steps(page: Any, run: Run) -> None:
    now = "timeline.step()"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(now) == 2
    page.keyboard.press("End")
    assert page.evaluate(now) == len(run.steps) - 1 and page.is_disabled("#next")
    page.keyboard.press("Home")
    assert page.evaluate(now) == 0 and page.is_disabled("#back")
    page.click("#next")
    page.focus("#step")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(now) == 2
    page.click("#play")
    assert page.get_attribute("#play", "aria-pressed") == "true"
    page.wait_for_function(f"{now} > 2")
    page.click("#play")
    assert page.inner_text("#play") == "Play"


def test_pointing_and_clicking(page: Any) -> None:
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 304)
    assert page.locator("#tip").is_visible() and "Request" in page.inner_text("#tip")
    assert "Its block table:" in page.inner_text("#tip")
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 304)
    assert page.evaluate("timeline.step()") > 5
    page.locator("#map").scroll_into_view_if_needed()
    pool = page.locator("#map").bounding_box()
    page.mouse.move(pool["x"] + 5, pool["y"] + 5)
    assert "Block 0:" in page.inner_text("#tip")


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_sticks_out(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_nothing(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.click("summary")
    found = axe.run(page).response["violations"]
    bad = [f"{v['id']}: {v['nodes'][0]['html']}" for v in found
           if v["impact"] in ("serious", "critical")]
    assert bad == []
