"""Data and table of the token-budget explorer: one prompt beside requests that decode.

The step times are `infero.simulate.RooflineCost`; `schedule` walks through the steps as the
scheduler plans them, and the explorer's test compares both with a simulated run.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from infero import hardware, results, roofline, simulate
from infero.simulate import RooflineCost

READERS, CONTEXT, PROMPT = 32, 1024, 8192
BUDGETS = (128, 256, 512, 1024, 2048, 4096, 0)  # 0: no chunks


def cost() -> RooflineCost:
    """Llama-3-8B on the H100 as measured, at the share of the roofline that chapter 2 found."""
    share = 1 / results.get("h100/roofline_sweep/prefill_2048_ratio").value
    return RooflineCost(roofline.shape("llama-3-8b"), hardware.measured("h100"), share)


def schedule(readers: int, context: int, prompt: int, budget: int) -> list[float]:
    """Seconds of each step until the prompt is computed."""
    times: list[float] = []
    done, model = 0, cost()
    while done < prompt:
        n = min(prompt - done, budget - readers) if budget else prompt
        done += n
        spans = [(n, done)] + [(1, context + len(times))] * readers
        times.append(simulate.step_s(model, spans))
    return times


def data() -> dict[str, Any]:
    """The model's shape, the card's limits and the share of them."""
    model, device = cost().shape, cost().device
    return {"model": asdict(roofline.shape("llama-3-8b")) | {"name": getattr(model, "name", "")},
            "share": cost().share,
            "device": {"name": device.name, "peak_flops_per_s": device.peak_flops_per_s,
                       "bandwidth_bytes_per_s": device.bandwidth_bytes_per_s}}


def fallback() -> str:
    """Longest gap and time to first token at some budgets, as an HTML table."""
    rows = []
    for budget in BUDGETS:
        times = schedule(READERS, CONTEXT, PROMPT, budget)
        name = f"{budget:,}" if budget else "no chunks"
        rows.append(f'<tr><th scope="row">{name}</th><td>{len(times)}</td>'
                    f"<td>{1e3 * max(times):.0f} ms</td><td>{1e3 * sum(times):.0f} ms</td></tr>")
    return (
        f'<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        f"<caption>A prompt of {PROMPT:,} tokens beside {READERS} decoding requests of {CONTEXT:,} "
        f"tokens, {roofline.shape('llama-3-8b').name} on an H100.</caption>"
        '<thead><tr><th scope="col">token budget</th><th scope="col">steps</th>'
        '<th scope="col">longest gap</th><th scope="col">first token of the prompt</th></tr>'
        "</thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
