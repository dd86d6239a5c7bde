"""The token-budget explorer: its formulas are the scheduler's, its page works by keys."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infero import simulate
from infero.scheduler import SchedulerConfig
from infero.simulate import Job

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

from tests.book.conftest import open_explorer  # noqa: E402

pytestmark = pytest.mark.browser
open_page = partial(open_explorer, name="token_budget")
RUN = """async (cases) => {
  const m = await import("./token_budget.js");
  const { model, device, share } = await (await fetch("./token_budget.json")).json();
  return cases.map((one) => m.outcome(m.arrival(model, device, share,
    { ...one, budget: one.budget || Infinity })));
}"""


@pytest.fixture(scope="module")
def program() -> Any:
    return explorers.program("token_budget")


def test_the_steps_are_the_table_s(page: Any, program: Any) -> None:
    cases = [dict(readers=r, context=c, prompt=p, budget=b) for r in (0, 4, 96)
             for c in (128, 8192) for p in (512, 30_000) for b in (128, 512, 8192, 0)]
    open_page(page)
    for case, mine in zip(cases, page.evaluate(RUN, cases), strict=True):
        times = program.schedule(**case)
        assert mine["ttftS"] == pytest.approx(sum(times), rel=1e-12), case
        assert mine["gapS"] == pytest.approx(max(times), rel=1e-12), case
        assert mine["steps"] == len(times), case


@pytest.mark.parametrize("budget", [256, 512, 2048, 0])
def test_the_steps_are_the_scheduler_s(page: Any, program: Any, budget: int) -> None:
    """Eight readers, all of them past their prompts; the long prompt comes as a step ends."""
    config = SchedulerConfig(max_num_seqs=16, max_num_batched_tokens=budget or 8192,
                             chunked_prefill=budget > 0, prefix_caching=False)
    readers = [Job(0.0, 16, 120) for _ in range(8)]
    alone = simulate.simulate(readers, config, program.cost(), num_blocks=2000)
    comes_s = alone.served[0].token_times_s[9]
    run = simulate.simulate([*readers, Job(comes_s, 6000, 2)], config, program.cost(),
                            num_blocks=2000)
    one = run.served[0]
    gaps = [b - a for a, b in zip(one.token_times_s, one.token_times_s[1:], strict=False)
            if a >= comes_s]
    open_page(page)
    mine = page.evaluate(RUN, [dict(readers=8, context=16 + 10, prompt=6000, budget=budget)])[0]
    assert mine["ttftS"] == pytest.approx(run.served[-1].latency.ttft_s)
    assert mine["gapS"] == pytest.approx(max(gaps))


def test_the_page(page: Any) -> None:
    open_page(page, "#token_budget?budget=5&readers=32&context=10&prompt=13")
    slider = page.get_by_label("Token budget of a step")
    assert slider.get_attribute("aria-valuetext") == "512"
    before = page.locator('[data-fact="longest gap of a reader"]').inner_text()
    slider.focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "no chunks"
    after = page.locator('[data-fact="longest gap of a reader"]').inner_text()
    assert before.endswith("ms") and before != after
    assert page.locator('[data-fact="steps it takes"]').inner_text() == "1"
    assert "budget=12" in page.url
    assert page.locator("svg rect.ix-bar").count() == 1
    open_page(page, "#token_budget?budget=99&readers=-3&prompt=x")  # nonsense is left out
    assert slider.get_attribute("aria-valuetext") == "512"
