"""The planner shares out bits as the engine does, and its page works by mouse and keys."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infero.quant import sensitivity

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

from tests.book.conftest import open_explorer  # noqa: E402

pytestmark = pytest.mark.browser
open_page = partial(open_explorer, name="bitbudget")


def cost(costs: list[list[float]], options: list[int], bits: list[int]) -> float:
    return sum(row[options.index(b)] for row, b in zip(costs, bits, strict=True))


def cases() -> list[list[Any]]:
    """Random models of a few matrices, and the one that is on the page at several budgets."""
    draw, made = random.Random(0), []
    for count in (1, 2, 5, 12):
        for options in ([2, 3, 4, 8], [3, 4], [2, 4, 5, 6]):
            sizes = [96 * draw.choice((3, 5, 8, 16)) for _ in range(count)]
            costs = [[draw.uniform(0, 3) / 4**b for b in options] for _ in sizes]
            for _ in range(4):
                made.append([costs, sizes, options,
                             round(draw.uniform(options[0], options[-1] + 0.5), 2)])
    data = explorers.program("bitbudget").data()
    costs = [row[3] for row in data["matrices"]]
    sizes = [row[2] for row in data["matrices"]]
    made += [[costs, sizes, data["options"], budget] for budget in (2, 2.5, 3.05, 3.5, 4, 5, 7.95)]
    return made


def test_the_knapsack_is_the_engine_s(page: Any) -> None:
    given = cases()
    open_page(page)
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./bitbudget.js");
          return cases.map(([costs, sizes, options, budget]) => {
            const bits = m.choose(costs, sizes, options, budget);
            return [bits, m.costOf(costs, options, bits)];
          });
        }""",
        given,
    )
    for (costs, sizes, options, budget), (bits, total) in zip(given, got, strict=True):
        mine = sensitivity.choose(costs, sizes, options, budget)
        want = cost(costs, options, mine)
        assert total == pytest.approx(want, rel=1e-9, abs=1e-12), (sizes, options, budget)
        assert total == pytest.approx(cost(costs, options, bits), rel=1e-9, abs=1e-12)
        used = sum(n * b for n, b in zip(sizes, bits, strict=True))
        assert used <= budget * sum(sizes) + 1e-6


def test_more_bits_never_cost_more(page: Any) -> None:
    open_page(page)
    falls = page.evaluate(
        """async () => {
          const m = await import("./bitbudget.js");
          const data = await (await fetch("./bitbudget.json")).json();
          const table = m.solve(data.matrices.map((r) => r[3]), data.matrices.map((r) => r[2]),
            data.options);
          const from = table.total * data.options[0];
          return table.best.slice(from + 1).every((v, i) => v <= table.best[from + i]);
        }"""
    )
    assert falls


def test_the_slider_and_the_rule_change_the_plan(page: Any) -> None:
    open_page(page, "#bitbudget?budget=4&by=uniform")
    words = page.inner_text(".ix-words")
    assert "with 4 bits" in words and "3 bits" not in words
    same = float(page.inner_text('[data-fact="KL predicted"]').split()[0])
    page.select_option("#bitbudget-by", "knapsack")
    assert float(page.inner_text('[data-fact="KL predicted"]').split()[0]) <= same
    before = page.get_attribute("svg", "aria-label")
    page.focus("#bitbudget-budget")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("svg", "aria-label") != before
    assert "budget=4.05" in page.url


def test_a_measured_budget_says_so(page: Any) -> None:
    data = explorers.program("bitbudget").data()
    budget, kl, _ = data["plans"][0]
    open_page(page, f"#bitbudget?budget={budget}&by=knapsack")
    shown = float(page.inner_text('[data-fact="KL measured"]').split()[0])
    assert shown == pytest.approx(kl, rel=6e-3)
    open_page(page, "#bitbudget?budget=7.35&by=knapsack")
    assert "not measured" in page.inner_text('[data-fact="KL measured"]')


def test_nonsense_in_the_address_is_ignored(page: Any) -> None:
    open_page(page, "#bitbudget?budget=99&by=nobody")
    assert page.input_value("#bitbudget-by") == "knapsack"
    assert page.input_value("#bitbudget-budget") == "3.5"


def test_every_control_has_a_label_and_nothing_is_cut_off_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    open_page(page)
    for control in page.query_selector_all("select, input"):
        assert control.evaluate("(e) => e.labels.length === 1 && e.labels[0].innerText.length")
    outside = page.evaluate(
        """() => { const svg = document.querySelector("svg").getBoundingClientRect();
          return [...document.querySelectorAll("svg text")].filter((t) => {
            const b = t.getBoundingClientRect();
            return b.width && (b.left < svg.left - 2 || b.right > svg.right + 2);
          }).map((t) => t.textContent); }"""
    )
    assert outside == []


def test_the_table_holds_the_measured_plans() -> None:
    table = explorers.program("bitbudget").fallback()
    plans = explorers.program("bitbudget").data()["plans"]
    assert "<caption>" in table and table.count('scope="row"') == len(plans)
