"""Data and table of the roofline explorer, from `infero.roofline` and `infero.hardware`."""

from __future__ import annotations

import html
from typing import Any

from infero import hardware, roofline

TABLE_MODEL = "llama-3-8b"
TABLE_CONTEXT = 2048
TABLE_BATCHES = (1, 32, 256)


def data() -> dict[str, Any]:
    """Devices and models; a device whose limits were measured is there twice, by both rows."""
    out = roofline.as_json()
    rows = out["devices"]
    for row in list(rows):
        measured = hardware.measured(row["slug"])
        if measured.evidence == "measured":
            extra = dict(row, slug=f"{row['slug']}-measured", evidence="measured")
            extra["bandwidth_bytes_per_s"] = measured.bandwidth_bytes_per_s
            extra["peak_flops_per_s"] = {
                name: measured.peak_flops_per_s[name] for name in ("bf16",)
            }
            extra["source"] = measured.source
            rows.insert(rows.index(row) + 1, extra)
    return out


def fallback() -> str:
    """The explorer's main settings as an HTML table: decode on each device at three batches."""
    model = roofline.shape(TABLE_MODEL)
    head = "".join(f'<th scope="col">batch {batch}</th>' for batch in TABLE_BATCHES)
    rows = []
    for device in hardware.DEVICES.values():
        compute = "bf16" if "bf16" in device.peak_flops_per_s else "fp16"
        cells = []
        for batch in TABLE_BATCHES:
            p = roofline.predict(
                model, device, batch=batch, context=TABLE_CONTEXT, compute=compute
            )
            room = "" if p.fits else "; does not fit"
            cells.append(f"<td>{p.tokens_per_s:,.0f} tokens/s, {p.bound}-bound{room}</td>")
        rows.append(f'<tr><th scope="row">{html.escape(device.name)}</th>{"".join(cells)}</tr>')
    return (
        f'<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        f"<caption>Decode of {model.name}, 16-bit weights and cache, context "
        f"{TABLE_CONTEXT:,}: the most tokens/s that each device's datasheet allows.</caption>"
        f'<thead><tr><th scope="col">device</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
