"""The coalescing explorer counts as the engine does, and reads expressions safely."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infero.kernels.steps import coalescing

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

from tests.book.conftest import open_explorer  # noqa: E402

pytestmark = pytest.mark.browser
open_page = partial(open_explorer, name="coalescing")


def test_the_counts_are_the_engine_s(page: Any) -> None:
    pick = random.Random(0)
    cases = [([pick.randrange(3000) for _ in range(32)], size)
             for size in (1, 2, 4, 8, 12, 16) for _ in range(20)]
    cases += [(list(range(0, 32 * s, s)), 4) for s in (1, 2, 3, 8, 31, 32, 33, 1000)]
    open_page(page)
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./coalescing.js");
          return cases.map(([i, size]) => [m.sectors(i, size), m.lines(i, size),
            m.efficiency(i, size), m.bankConflicts(i, size)]);
        }""", cases)
    for (indexes, size), mine in zip(cases, got, strict=True):
        want = [coalescing.sectors(indexes, size), coalescing.lines(indexes, size),
                coalescing.efficiency(indexes, size), coalescing.bank_conflicts(indexes, size)]
        assert mine == pytest.approx(want, rel=1e-12), (indexes, size)


@pytest.mark.parametrize("expression", [
    "t", "2*t+1", "(t//8)*100 + t%8", "t ^ 3", "31 - t", "t << 2", "t >> 1 | 8", "((t))",
    "- 3 + 4 * t + 3", "t % 5 // 2", "1 + 2 * 3 - t + t", "7 & t",
])
def test_expressions_mean_what_python_means(page: Any, expression: str) -> None:
    open_page(page)
    got = page.evaluate("async (e) => (await import('./coalescing.js')).indexesOf(e)", expression)
    assert got == [eval(expression, {"t": t}) for t in range(32)]


@pytest.mark.parametrize(("expression", "says"), [
    ("", "Type an index"), ("2 *", "stops too early"), ("(t", "not closed"), ("t t", "follow"),
    ("alert(1)", "unknown"), ("t.constructor", "cannot read"), ("t // 0", "no whole number"),
    ("t - 5", "before the array"), ("y[t]", "cannot read"), ("* t", "where a number"),
    ("99999999999 * t", "no whole number"), ("<img src=x>", "cannot read"),
])
def test_other_text_is_refused_in_words(page: Any, expression: str, says: str) -> None:
    open_page(page)
    page.fill("#coalescing-expression", expression)
    assert says in page.inner_text(".ix-words")
    assert page.get_attribute("#coalescing-expression", "aria-invalid") == "true"
    page.fill("#coalescing-expression", "t")
    assert "4 sectors" in page.inner_text(".ix-words")


def test_every_preset_is_the_table_s(page: Any) -> None:
    program = explorers.program("coalescing")
    open_page(page)
    for number, (_, expression, size, _) in enumerate(program.PRESETS):
        page.select_option("#coalescing-preset", str(number))
        assert page.input_value("#coalescing-expression") == expression
        page.select_option("#coalescing-mode", "global")
        want = coalescing.sectors(program.indexes(expression), size)
        assert page.inner_text('[data-fact="sectors moved"]') == str(want)
        page.select_option("#coalescing-mode", "shared")
        rounds = coalescing.bank_conflicts(program.indexes(expression), size)
        assert page.inner_text('[data-fact="rounds"]') == str(rounds)


def test_threads_are_stepped_through_and_paused(page: Any) -> None:
    open_page(page)
    page.click("text=Step")
    assert page.input_value("#coalescing-thread") == "1"
    page.click("text=Play")
    page.wait_for_function("document.querySelector('#coalescing-thread').value > 2")
    page.click("text=Pause")
    now = page.input_value("#coalescing-thread")
    page.wait_for_timeout(800)
    assert page.input_value("#coalescing-thread") == now
    assert f"Thread {now} reads" in (page.text_content("svg") or "")


def test_a_setting_can_be_shared_by_its_address(page: Any) -> None:
    open_page(page, "#coalescing?expression=8 * t&size=2&mode=shared&thread=9")
    assert page.input_value("#coalescing-expression") == "8 * t"
    assert page.input_value("#coalescing-thread") == "9"
    open_page(page, "#coalescing?size=3&mode=x&thread=99")
    assert page.input_value("#coalescing-size") == "4"


def test_every_control_has_a_label(page: Any) -> None:
    open_page(page)
    for one in page.query_selector_all("select, input"):
        assert one.evaluate("(e) => e.labels.length === 1 && e.labels[0].innerText.length")


def test_nothing_is_cut_off_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    open_page(page)
    for number in range(len(explorers.program("coalescing").PRESETS)):
        page.select_option("#coalescing-preset", str(number))
        for mode in ("global", "shared"):
            page.select_option("#coalescing-mode", mode)
            outside = page.evaluate(
                """() => { const svg = document.querySelector("svg").getBoundingClientRect();
                  return [...document.querySelectorAll("svg text")].filter((t) => {
                    const b = t.getBoundingClientRect();
                    return b.width && (b.left < svg.left - 2 || b.right > svg.right + 2);
                  }).map((t) => t.textContent); }""")
            assert outside == [], (number, mode)


def test_the_table_holds_the_engine_s_numbers() -> None:
    table = explorers.program("coalescing").fallback()
    assert "<caption>" in table and 'scope="row"' in table
    assert "<td>4</td><td>32</td><td>32</td><td>12.5 %</td><td>32</td>" in table
