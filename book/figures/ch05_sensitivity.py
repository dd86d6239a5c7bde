"""KL divergence when one matrix alone is rounded, over layers and matrices (chapter 5)."""

import numpy as np
from matplotlib.colors import LogNorm

from infero import results

NAMES = ("qkv", "o", "gate_up", "down")


def draw(theme):
    fig, ax = theme.figure(7.2, 2.5)
    bits = int(results.get("gpu/sensitivity/map_bits").value)
    rows = [r for r in results.table("gpu/sensitivity/costs").records() if r["bits"] == bits]
    layers = 1 + max(r["layer"] for r in rows)
    cost = np.zeros((len(NAMES), layers))
    for r in rows:
        cost[NAMES.index(r["matrix"]), r["layer"]] = 1e3 * max(r["kl"], 1e-7)
    shown = ax.imshow(cost, aspect="auto", norm=LogNorm(),
                      cmap="Blues" if theme.name == "light" else "Blues_r")
    for flat in np.argsort(cost, axis=None)[-5:]:
        y, x = np.unravel_index(flat, cost.shape)
        ax.text(x, y, f"{cost[y, x]:.0f}", ha="center", va="center", fontsize=8.6, rotation=90,
                color="white" if theme.name == "light" else "black")
    ax.set_yticks(range(4), NAMES)
    ax.set(xlabel="layer", xticks=range(0, layers, 5))
    ax.grid(False)
    bar = fig.colorbar(shown, ax=ax, pad=0.015)
    bar.set_label("KL, 0.001 nats")
    return fig
