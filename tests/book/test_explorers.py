"""The explorers' JavaScript gives the engine's numbers, and their pages work by mouse and keys."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from infero import hardware, roofline, sampling

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from infero_book import explorers  # noqa: E402

pytestmark = pytest.mark.browser


def test_roofline_equals_the_engine(page: Any) -> None:
    cases, want = [], []
    batches = ((1, 1, 1), (7, 1, 900), (512, 1, 32768), (1, 2048, 2048), (4, 128, 4096))
    for model, device, (batch, fresh, context), (bits, kv) in itertools.product(
        roofline.MODELS, ("t4", "h100", "mi300x"), batches, ((16, 16), (4.25, 8))
    ):
        compute = "fp16" if device == "t4" else "bf16"
        step = dict(batch=batch, fresh=fresh, context=context, weightBits=bits, kvBits=kv)
        cases.append([model, device, step | {"compute": compute}])
        want.append(
            roofline.predict(
                roofline.MODELS[model], hardware.DEVICES[device], batch=batch, new=fresh,
                context=context, weight_bits=bits, kv_bits=kv, compute=compute,
            )
        )  # fmt: skip
    page.goto("/roofline.html")
    got = page.evaluate(
        """async (cases) => {
          const m = await import("./roofline.js");
          const data = await (await fetch("./roofline.json")).json();
          const devices = Object.fromEntries(data.devices.map((row) => [row.slug, row]));
          return cases.map(([model, device, step]) =>
            m.predict(data.models[model], devices[device], step));
        }""",
        cases,
    )
    for case, mine, engine in zip(cases, got, want, strict=True):
        pairs = {
            "weights": engine.weights_bytes, "cache": engine.kv_cache_bytes,
            "activations": engine.activations_bytes, "flops": engine.flops,
            "computeS": engine.compute_s, "memoryS": engine.memory_s, "timeS": engine.time_s,
            "needed": engine.memory_needed_bytes, "intensity": engine.intensity,
            "tokensPerS": engine.tokens_per_s,
        }  # fmt: skip
        for name, value in pairs.items():
            assert mine[name] == pytest.approx(value, rel=1e-12), (case, name)
        assert (mine["bound"], mine["fits"]) == (engine.bound, engine.fits), case


def test_critical_batch_equals_the_engine(page: Any) -> None:
    contexts = (1, 64, 512, 4096)
    page.goto("/roofline.html")
    got = page.evaluate(
        """async (contexts) => {
          const m = await import("./roofline.js");
          const data = await (await fetch("./roofline.json")).json();
          const device = data.devices.find((row) => row.slug === "h100");
          return contexts.map((context) => {
            const step = { context, weightBits: 16, kvBits: 16, compute: "bf16" };
            return String(m.predictCriticalBatch(data.models["llama-3-8b"], device, step));
          });
        }""",
        contexts,
    )
    for context, text in zip(contexts, got, strict=True):
        engine = roofline.predict_critical_batch(
            roofline.shape("llama-3-8b"), hardware.device("h100"), context
        )
        mine = float(text.replace("Infinity", "inf"))
        assert mine == pytest.approx(engine, rel=1e-12), context


def test_sampler_equals_the_engine(page: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    rows = [torch.randn(40, generator=generator).mul(3).tolist(), [2.0, 2.0, 2.0, 1.0, 1.0, -5.0],
            [0.5]]  # fmt: skip
    settings = list(
        itertools.product((0, 0.3, 1, 1.7), (0, 1, 3, 99), (0.1, 0.62, 1), (0, 0.05, 0.4))
    )
    page.goto("/sampler.html")
    got = page.evaluate(
        """async ([rows, settings]) => {
          const m = await import("./sampler.js");
          return rows.map((row) => settings.map(([t, k, p, m_]) =>
            m.process(row, { t, k, p, m: m_ })));
        }""",
        [rows, [list(s) for s in settings]],
    )
    for row, answers in zip(rows, got, strict=True):
        for (t, k, p, m), mine in zip(settings, answers, strict=True):
            params = sampling.SamplingParams(temperature=t, top_k=k, top_p=p, min_p=m)
            logits = torch.tensor([row])
            if t == 0:
                want = torch.zeros(len(row))
                chosen = sampling.sample(logits, sampling.rows_of([params], [0], [0]))
                want[int(chosen[0])] = 1
            else:
                batch = sampling.rows_of([params], [0], [0])
                want = sampling.process(logits, batch).softmax(-1)[0]
            assert mine == pytest.approx(want.tolist(), abs=2e-6), (t, k, p, m)


def test_roofline_page_shows_the_engine_s_numbers(page: Any) -> None:
    page.goto("/roofline.html")
    page.wait_for_selector('[data-ready="true"]')
    page.select_option("#roofline-device", "h100")
    page.select_option("#roofline-model", "llama-3-8b")
    shown = page.inner_text('[data-fact="tokens/s, all requests"]')
    context = 2 ** int(page.input_value("#roofline-context"))
    engine = roofline.predict(
        roofline.shape("llama-3-8b"), hardware.device("h100"), context=context
    )
    assert float(shown.replace(",", "")) == pytest.approx(engine.tokens_per_s, rel=5e-3)
    assert page.inner_text('[data-fact="bound by"]') == engine.bound
    page.select_option("#roofline-step", "prefill")
    assert page.inner_text('[data-fact="bound by"]') == "compute"


def test_a_setting_can_be_shared_by_its_address(page: Any) -> None:
    page.goto("/roofline.html#roofline?device=l4&model=qwen3-0.6b&step=decode&batch=5&context=12")
    page.wait_for_selector('[data-ready="true"]')
    assert page.input_value("#roofline-device") == "l4"
    assert page.input_value("#roofline-batch") == "5"
    page.focus("#roofline-batch")
    page.keyboard.press("ArrowRight")
    assert "batch=6" in page.url and "device=l4" in page.url
    text = page.inner_text('[data-fact="tokens/s, all requests"]')
    page.goto("about:blank")
    page.goto("/roofline.html#roofline?device=nonsense&batch=999&context=x&weights=w3")
    page.wait_for_selector('[data-ready="true"]')
    assert page.input_value("#roofline-device") == "h100" and text


def test_every_control_has_a_label_and_answers_to_keys(page: Any) -> None:
    for name in ("roofline", "sampler"):
        page.goto(f"/{name}.html")
        page.wait_for_selector('[data-ready="true"]')
        for control in page.query_selector_all("select, input"):
            assert control.evaluate("(e) => e.labels.length === 1 && e.labels[0].innerText.length")
        before = page.get_attribute("svg", "aria-label")
        page.focus("input[type=range]")
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        assert page.get_attribute("svg", "aria-label") != before


def test_without_its_data_the_table_still_holds(page: Any, address: str) -> None:
    page.route("**/sampler.json", lambda route: route.abort())
    page.goto("/sampler.html")
    page.wait_for_selector("details[open]")
    assert "could not start" in page.inner_text(".infero-explorer-stage")


def test_no_format_that_the_device_lacks_can_be_chosen(page: Any) -> None:
    page.goto("/roofline.html")
    page.wait_for_selector('[data-ready="true"]')
    page.select_option("#roofline-weights", "fp8")
    page.select_option("#roofline-device", "a100-80")
    assert page.input_value("#roofline-weights") == "w16"
    assert page.evaluate("document.querySelector('#roofline-weights [value=fp8]').disabled")


def test_the_tables_hold_the_engine_s_numbers() -> None:
    table = explorers.program("roofline").fallback()
    engine = roofline.predict(
        roofline.shape("llama-3-8b"), hardware.device("h100"), batch=1, context=2048
    )
    assert f"{engine.tokens_per_s:,.0f} tokens/s" in table
    assert "<caption>" in table and 'scope="row"' in table
    assert math.isfinite(engine.time_s)
