"""The KV-cache calculator gives the engine's numbers, and its page works by mouse and keys."""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infero import hardware, roofline
from infero.cache import memory, shapes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

from tests.book.conftest import open_explorer  # noqa: E402

pytestmark = pytest.mark.browser
open_page = partial(open_explorer, name="kv_memory")
MODELS = shapes.published()


def test_the_formulas_are_the_engine_s(page: Any) -> None:
    cases = list(itertools.product(MODELS, (128, 3000, 8192, 131_072), (1, 52, 4096),
                                   (16e9, 80e9, 1128e9), ((16, 16), (8, 8), (4.25, 4))))
    open_page(page)
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./kv_memory.js");
          const data = await (await fetch("./kv_memory.json")).json();
          return cases.map(([name, context, users, memory, [weights, cache]]) => {
            const model = data.models[name];
            return [m.bytesPerToken(model, cache), m.requestBytes(model, context, cache),
              m.requestsThatFit(model, context, memory, weights, cache, data.utilization),
              m.shareOfReads(model, users, context, weights, cache)];
          });
        }""",
        cases,
    )
    for case, mine in zip(cases, got, strict=True):
        name, context, users, memory_bytes, (weights, cache) = case
        model = MODELS[name]
        assert mine[0] == model.bytes_per_token(cache), case
        assert mine[1] == model.request_bytes(context, cache), case
        assert mine[2] == model.requests_that_fit(context, memory_bytes, weights, cache), case
        want = model.share_of_reads(users, context, weights, cache)
        assert mine[3] == pytest.approx(want, rel=1e-12), case


def test_the_page_shows_the_size_that_the_engine_allocates(page: Any) -> None:
    open_page(page)
    for key, shape in roofline.MODELS.items():
        page.select_option("#kv_memory-model", key)
        kib = float(page.inner_text('[data-fact="bytes a token"]').removesuffix(" KiB"))
        assert kib == pytest.approx(memory.kv_bytes_per_token(shape) / 1024, rel=5e-3)
    page.select_option("#kv_memory-model", "llama-3-8b")
    context = 2 ** int(page.input_value("#kv_memory-context"))
    want = MODELS["llama-3-8b"].requests_that_fit(context, hardware.device("h100").memory_bytes)
    assert page.inner_text('[data-fact="users that fit"]') == f"{want:,}"


def test_what_does_not_fit_is_said(page: Any) -> None:
    open_page(page, "#kv_memory?model=deepseek-v3&device=h100&count=1")
    assert "do not fit" in page.inner_text(".ix-words")
    page.select_option("#kv_memory-device", "h200")
    page.select_option("#kv_memory-count", "8")
    page.select_option("#kv_memory-weights", "8")
    assert "There is room for" in page.inner_text(".ix-words")
    page.focus("#kv_memory-users")
    page.keyboard.press("End")
    assert "too much" in page.inner_text(".ix-words")
    page.select_option("#kv_memory-model", "falcon-7b")
    page.focus("#kv_memory-context")
    page.keyboard.press("End")
    assert "context ends at 2,048" in page.inner_text(".ix-words")


def test_a_setting_can_be_shared_by_its_address(page: Any) -> None:
    open_page(page, "#kv_memory?model=gemma-3-27b&device=a100-80&cache=8&context=15&users=3")
    assert page.input_value("#kv_memory-model") == "gemma-3-27b"
    assert page.input_value("#kv_memory-context") == "15"
    page.focus("#kv_memory-users")
    page.keyboard.press("ArrowRight")
    assert "users=4" in page.url and "device=a100-80" in page.url
    open_page(page, "#kv_memory?model=nonsense&count=3&context=999&users=x&weights=7")
    assert page.input_value("#kv_memory-model") == "llama-3-8b"
    assert page.input_value("#kv_memory-count") == "1"


def test_every_control_has_a_label_and_answers_to_keys(page: Any) -> None:
    open_page(page)
    for control in page.query_selector_all("select, input"):
        assert control.evaluate("(e) => e.labels.length === 1 && e.labels[0].innerText.length")
    before = page.get_attribute("svg", "aria-label")
    page.focus("input[type=range]")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("svg", "aria-label") != before


def test_nothing_is_cut_off_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    open_page(page)
    for model in MODELS:
        page.select_option("#kv_memory-model", model)
        outside = page.evaluate(
            """() => { const svg = document.querySelector("svg").getBoundingClientRect();
              return [...document.querySelectorAll("svg text")].filter((t) => {
                const b = t.getBoundingClientRect();
                return b.width && (b.left < svg.left - 2 || b.right > svg.right + 2);
              }).map((t) => t.textContent); }"""
        )
        assert outside == [], model


def test_the_table_holds_the_engine_s_numbers() -> None:
    table = explorers.program("kv_memory").fallback()
    assert "<caption>" in table and 'scope="row"' in table
    assert "<td>128 KiB</td><td>16.1 GB</td><td>208</td><td>52</td>" in table
    assert table.count("too long for it") >= 2
