"""Data and table of the KV-cache memory calculator, from `infero.cache.shapes` and the devices."""

from __future__ import annotations

import html
from typing import Any

from infero import hardware
from infero.cache import shapes

TABLE_DEVICE = "h100"
TABLE_CONTEXTS = (2048, 8192, 32_768)


def data() -> dict[str, Any]:
    """`{"models": {slug: shape}, "devices": [{"slug", "name", "memory_bytes"}], "utilization"}`."""
    devices = [{"slug": d.slug, "name": d.name, "memory_bytes": d.memory_bytes}
               for d in hardware.DEVICES.values()]
    return {"models": shapes.as_json(), "devices": devices, "utilization": shapes.UTILIZATION}


def fallback() -> str:
    """The calculator's main settings as an HTML table: every model on one card."""
    device = hardware.DEVICES[TABLE_DEVICE]
    head = "".join(f'<th scope="col">users of {c:,} tokens</th>' for c in TABLE_CONTEXTS)
    rows = []
    for shape in shapes.published().values():
        users = []
        for context in TABLE_CONTEXTS:
            too_long = context > shape.max_context
            fits = shape.requests_that_fit(context, device.memory_bytes)
            users.append(f"<td>{'too long for it' if too_long else f'{fits:,}'}</td>")
        rows.append(
            f'<tr><th scope="row">{html.escape(shape.name)} ({shape.kind})</th>'
            f"<td>{shape.bytes_per_token() / 1024:,.3g} KiB</td>"
            f"<td>{2 * shape.parameters / 1e9:,.3g} GB</td>{''.join(users)}</tr>"
        )
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        f"<caption>KV cache with 16 bits a number, beside 16-bit weights on one "
        f"{html.escape(device.name)}, nine tenths of whose memory are used.</caption>"
        f'<thead><tr><th scope="col">model</th><th scope="col">a token</th>'
        f'<th scope="col">weights</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
