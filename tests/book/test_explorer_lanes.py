"""The lanes explorer: its timelines are infero.lanes, its page works by keys, stops and steps."""

from __future__ import annotations

import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from infero import lanes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

from tests.book.conftest import open_explorer  # noqa: E402

pytestmark = pytest.mark.browser
open_page = partial(open_explorer, name="lanes")
RUN = """async (cases) => {
  const m = await import("./lanes.js");
  return cases.map((one) => ({ steady: m.steady(one).stepS,
    ends: m.timeline(one).map((s) => s.device.map((k) => k[1])) }));
}"""


@pytest.fixture(scope="module")
def program() -> Any:
    return explorers.program("lanes")


def options(program: Any, kernels: int, kernel_s: float, launch_s: float, plan_s: float,
            graph: bool, ahead: bool) -> dict[str, Any]:
    return {"kernels": kernels, "kernelS": kernel_s, "launchS": launch_s, "planS": plan_s,
            "graphS": program.GRAPH_S, "gapS": program.GAP_S, "graph": graph, "ahead": ahead,
            "steps": 6}


def test_the_timelines_are_the_engine_s(page: Any, program: Any) -> None:
    cases = [(n, k, c, p, graph, ahead) for n, k, c, p in product(
        (4, 31), (1e-6, 9e-6), (3e-6, 12e-6), (0.0, 2e-4)) for graph in (False, True)
        for ahead in (False, True)]
    open_page(page)
    found = page.evaluate(RUN, [options(program, *case) for case in cases])
    for (n, k, c, p, graph, ahead), mine in zip(cases, found, strict=True):
        assert mine["steady"] == pytest.approx(program.step_s(n, k, c, p, graph, ahead)), (n, k, c)
        if not graph:  # the first step begins when it is planned
            assert mine["ends"][0] == pytest.approx([p + e for e in lanes.device_ends([k] * n, c)])
            continue
        ends = [step[-1] for step in mine["ends"]]
        plans, runs = [p + program.GRAPH_S] * 6, [n * (program.GAP_S + k)] * 6
        assert ends == pytest.approx((lanes.overlapped if ahead else lanes.in_turn)(plans, runs))
        first = lanes.replayed_ends([k] * n, program.GRAPH_S, program.GAP_S)
        assert mine["ends"][0] == pytest.approx([p + e for e in first])


def test_the_page(page: Any) -> None:
    open_page(page, "#lanes?kernels=8&kernel=20&launch=70&plan=100&graph=0&ahead=0")
    fact = page.locator('[data-fact="one by one, in turn"]')
    assert fact.inner_text() == "158 µs, 10 % busy"
    slider = page.get_by_label("A kernel runs for")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "2.5 µs"
    assert "kernel=25" in page.url
    page.get_by_label("Kernels are launched").select_option("1")
    assert page.locator(".ix-strong dt").inner_text() == "graph, in turn"
    open_page(page, "#lanes?kernels=9999&kernel=-3&graph=x")  # nonsense is left out
    assert page.get_by_label("Kernels a step").get_attribute("aria-valuetext") == "24"


def test_it_stops_and_steps(page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    open_page(page, "#lanes?kernels=8&kernel=20&launch=70&plan=0&graph=0&ahead=0")
    words = page.locator(".ix-words").first
    assert "in the long run" in words.inner_text()
    page.get_by_role("button", name="Back to the kernel's end before").click()
    assert "31 of 32 kernels" in words.inner_text()
    page.get_by_role("button", name="On to the next kernel's end").click()
    assert "in the long run" in words.inner_text()
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.ix-words').textContent.includes('After')")
    page.get_by_role("button", name="Pause").click()
    before = words.inner_text()
    page.wait_for_timeout(700)
    assert words.inner_text() == before
