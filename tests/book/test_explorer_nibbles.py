"""The nibbles explorer: its bits are the lab's, its drawing agrees, it can be paused."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from infero.kernels.steps import matmul

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402


@pytest.fixture
def page(page: Any) -> Any:
    page.goto("/nibbles.html")
    page.wait_for_selector('[data-ready="true"]')
    return page


def words_of(rows: list[list[int]]) -> list[int]:
    """Each row of eight values as the engine's word, unsigned."""
    packed = matmul.pack_nibbles(torch.tensor(rows, dtype=torch.uint8)).flatten()
    return [int(word) & 0xFFFFFFFF for word in packed]


def test_the_example_is_the_chapters() -> None:
    program = explorers.program("nibbles")
    assert program.ORDERS["interleaved"][1] == list(matmul.ORDER)
    assert words_of([program.VALUES]) == [program.word_of(program.VALUES, list(matmul.ORDER))]
    assert f"{words_of([program.VALUES])[0]:08X}" == "697C1F03"
    text = (ROOT / "book" / "15_quantized_kernels.md").read_text(encoding="utf-8")
    assert "0x697C1F03" in text
    for _, order in program.ORDERS.values():
        assert sorted(order) == list(range(8))


def test_the_table_tells_the_four_shifts() -> None:
    program = explorers.program("nibbles")
    table = program.fallback()
    assert table.count("<tr>") == 5
    assert "<caption>" in table
    want = sum(v * x for v, x in zip(program.VALUES, program.X, strict=True))
    assert f"<td>{want:g}</td>" in table


# ---------------------------------------------------------------- in a browser


@pytest.mark.browser
def test_words_and_numbers_equal_the_engine(page: Any) -> None:
    draw = random.Random(15)
    rows = [[draw.randrange(16) for _ in range(8)] for _ in range(40)] + [[15] * 8, [0] * 8]
    got = page.evaluate(
        """async ([rows, order]) => {
          const m = await import("./nibbles.js");
          return rows.map((r) => [m.pack(r, order), m.unpack(m.pack(r, order))]);
        }""",
        [rows, list(matmul.ORDER)],
    )
    assert [word for word, _ in got] == words_of(rows)
    assert [values for _, values in got] == rows


@pytest.mark.browser
def test_any_order_is_read_as_the_engine_would(page: Any) -> None:
    draw = random.Random(16)
    program = explorers.program("nibbles")
    cases = []
    for _ in range(30):
        order = draw.sample(range(8), 8)
        values = [draw.randrange(16) for _ in range(8)]
        cases.append([values, order, [draw.randrange(-8, 9) / 2 for _ in range(8)]])
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./nibbles.js");
          return cases.map(([v, o, x]) => [m.unpack(m.pack(v, o)), m.dot(m.pack(v, o), x),
            [0, 1, 2, 3].map((k) => m.unpackStep(m.pack(v, o), k).bits)]);
        }""",
        cases,
    )
    for (values, order, x), (numbers, total, bits) in zip(cases, got, strict=True):
        word = program.word_of(values, order)
        signed = torch.tensor([[word - (word >> 31 << 32)]], dtype=torch.int32)
        want = matmul.unpack_nibbles(signed)[0].double()
        assert numbers == want.tolist()
        assert total == float(want @ torch.tensor(x, dtype=torch.float64))
        assert bits == [step["bits"] for step in program.steps(word)]


@pytest.mark.browser
def test_steps_by_mouse_and_keys(page: Any) -> None:
    words = "p[aria-live]"
    assert "697C1F03" in page.inner_text(words)
    page.click('button[aria-label="One step forward"]')
    assert "Shift by 0" in page.inner_text(words)
    page.focus("#nibbles-step")
    page.keyboard.press("ArrowRight")
    assert "Mask with" in page.inner_text(words)
    page.keyboard.press("End")
    assert "the right sum" in page.inner_text(words)
    assert page.is_disabled('button[aria-label="One step forward"]')
    assert page.inner_text(words) == page.get_attribute("svg", "aria-label")
    page.select_option("#nibbles-order", "natural")
    assert "nothing failed, and the result is wrong" in page.inner_text(words)
    assert "order=natural" in page.url
    page.click('button[aria-label="Back to the beginning"]')
    assert page.input_value("#nibbles-step") == "0"


@pytest.mark.browser
def test_it_plays_only_when_asked_and_can_be_paused(page: Any) -> None:
    page.clock.install()
    page.goto("/nibbles.html#nibbles?order=reversed&step=3")
    page.reload()
    page.wait_for_selector('[data-ready="true"]')
    page.clock.run_for(20_000)
    assert page.input_value("#nibbles-step") == "3", "nothing moves unasked"
    page.click('button[aria-label="Play the steps"]')
    page.clock.run_for(3_600)
    assert page.input_value("#nibbles-step") == "5"
    page.click('button[aria-label="Pause the steps"]')
    page.clock.run_for(20_000)
    assert page.input_value("#nibbles-step") == "5"


@pytest.mark.browser
def test_an_address_that_makes_no_sense_starts_at_the_beginning(page: Any) -> None:
    for value in ("step=99", "step=-1", "step=x", "order=nonsense&step=1.5"):
        page.goto(f"/nibbles.html#nibbles?{value}")
        page.reload()
        page.wait_for_selector('[data-ready="true"]')
        assert page.input_value("#nibbles-step") == "0"
        assert page.input_value("#nibbles-order") == "interleaved"
