"""The batching explorer counts as infero.batching does, and its page works by mouse and keys."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from infero import batching

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

pytestmark = pytest.mark.browser


@pytest.fixture
def page(page: Any) -> Any:
    page.goto("/batching.html")
    page.wait_for_selector('[data-ready="true"]')
    return page


def cases() -> list[dict[str, Any]]:
    draw, found = random.Random(3), []
    for _ in range(60):
        count = draw.randint(1, 20)
        found.append({
            "lengths": [draw.randint(1, 25) for _ in range(count)], "slots": draw.randint(1, 8),
            "arrivals": [draw.choice((0, draw.randint(0, 60))) for _ in range(count)],
            "window": draw.randint(0, 20),
        })
    return found


def test_counts_equal_the_engine_s(page: Any) -> None:
    asked = cases()
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./batching.js");
          return cases.map((c) => [m.staticSteps(c.lengths, c.slots),
                                   m.continuousSteps(c.lengths, c.slots)]);
        }""",
        asked,
    )
    for case, mine in zip(asked, got, strict=True):
        assert mine == [batching.static_steps(case["lengths"], case["slots"]),
                        batching.continuous_steps(case["lengths"], case["slots"])], case


def test_traces_equal_the_engine_s(page: Any) -> None:
    asked = cases()
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./batching.js");
          return cases.map((c) => m.POLICIES.map((policy) => {
            const services = m.simulate(policy, c.lengths, c.slots, c.arrivals, c.window);
            return { services, summary: m.summary(services, c.slots) };
          }));
        }""",
        asked,
    )
    fields = ("request", "slot", "arrival", "start", "end", "released")
    for case, answers in zip(asked, got, strict=True):
        for policy, mine in zip(batching.POLICIES, answers, strict=True):
            trace = batching.simulate(policy, case["lengths"], case["slots"], case["arrivals"],
                                      case["window"])
            want = [{name: getattr(s, name) for name in fields} for s in trace.services]
            assert mine["services"] == want, (policy, case)
            assert mine["summary"]["makespan"] == trace.makespan
            assert mine["summary"]["passes"] == trace.passes
            assert mine["summary"]["utilisation"] == pytest.approx(trace.utilisation)


def test_the_reader_s_own_lengths(page: Any) -> None:
    page.fill("#batching-lengths", "10, 2 2; 2")
    page.fill("#batching-arrivals", "")
    page.focus("#batching-slots")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text('[data-fact="static done after"] dd') == "12"
    assert page.inner_text('[data-fact="continuous done after"] dd') == "10"
    assert "lengths=10%2C2%2C2%2C2" in page.url and "slots=2" in page.url
    page.fill("#batching-lengths", "10, x")
    assert "not a whole number" in page.inner_text("#batching-problem")
    assert page.get_attribute("#batching-lengths", "aria-invalid") == "true"
    page.fill("#batching-lengths", "3, 3")
    page.fill("#batching-arrivals", "1")
    assert "give one each" in page.inner_text("#batching-problem")
    page.fill("#batching-arrivals", "1, 1")
    assert page.inner_text("#batching-problem") == ""


def test_play_pause_and_step(page: Any) -> None:
    slider = "#batching-time"
    end = page.input_value(slider)
    page.click("text=Play")
    assert page.input_value(slider) == "0"
    page.wait_for_function("document.querySelector('#batching-time').value !== '0'")
    page.click("text=Pause")
    at = int(page.input_value(slider))
    page.click("text=Step ▶")
    assert int(page.input_value(slider)) == at + 1
    page.click("text=◀ Step")
    before = page.get_attribute("svg", "aria-label")
    assert f"Pass {at + 1}:" in before
    page.click("text=Show all")
    assert page.input_value(slider) == end
    page.click("text=Equal lengths")
    assert page.inner_text('[data-fact="static slots used"] dd') == "100 %"
    for box in page.query_selector_all("input"):
        assert box.evaluate("(e) => e.labels.length === 1 && e.labels[0].innerText.length > 0")


def test_a_timeline_can_be_shared_by_its_address(page: Any) -> None:
    page.goto("about:blank")
    page.goto("/batching.html#batching?lengths=5%2C1%2C1&slots=2&window=3&arrivals=0%2C0%2C4")
    page.wait_for_selector('[data-ready="true"]')
    assert page.input_value("#batching-lengths") == "5, 1, 1"
    assert page.input_value("#batching-arrivals") == "0, 0, 4"
    page.goto("about:blank")
    page.goto("/batching.html#batching?lengths=0%2Cx&slots=99")
    page.wait_for_selector('[data-ready="true"]')
    assert page.input_value("#batching-slots") == "4"


def test_the_table_holds_the_engine_s_numbers() -> None:
    table = explorers.program("batching").fallback()
    assert "17 passes, 59% used" in table and "12 passes, 83% used" in table
    assert "<caption>" in table and 'scope="row"' in table
