"""Power, speed and energy a token of an 8B-shaped model, by batch."""

from __future__ import annotations

from typing import Any

from infero import results


def draw(theme: Any) -> Any:
    fig, (left, right) = theme.figure(7.2, 3.0, columns=2)
    phases = results.table("gpu/power/phases").records()
    rows = [r for r in phases if r["phase"].startswith("decode")]
    batch = [r["tokens"] for r in rows]
    left.semilogx(batch, [r["power"] for r in rows], "o-", base=2, color=theme.blue)
    limit = results.get("gpu/power/limit").value
    idle = results.get("gpu/power/idle_power").value
    for y, name, color in ((limit, "limit of the card", theme.vermilion),
                           (idle, "idle", theme.muted)):
        left.axhline(y, color=color, linestyle="--", linewidth=1)
        left.text(batch[0], y + 12, name, color=theme.ink, fontsize=9)
    left.set(xlabel="requests decoded at once", ylabel="W", ylim=(0, 800), title="Power")
    right.loglog(batch, [r["energy"] for r in rows], "o-", base=2, color=theme.blue, label="decode")
    each = rows[0]["energy"]
    right.loglog(batch, [each / b for b in batch], "--", base=2, color=theme.muted,
                 label="if sharing were free")
    prefill = results.get("gpu/power/prefill_energy").value
    right.axhline(prefill, color=theme.green, linestyle=":", linewidth=1.6, label="a prompt token")
    right.set(xlabel="requests decoded at once", ylabel="J a token", title="Energy",
              yscale="log")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4]
    right.set_yticks(ticks, [f"{t:g}" for t in ticks])
    right.minorticks_off()
    for ax in (left, right):
        ax.set_xticks(batch, [str(b) for b in batch])
    right.legend(loc="upper right")
    return fig
