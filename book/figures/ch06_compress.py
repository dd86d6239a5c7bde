"""Eight weights, two of every four zero, as four values and one byte of positions."""

import torch

from infero.compress import semi_structured

ROW = [0.0, 5.0, 0.0, -2.0, 7.0, 0.0, 1.0, 0.0]


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.75)
    values, positions = semi_structured.compress(torch.tensor([ROW]))
    byte = int(positions)
    colors = (theme.blue, theme.vermilion)
    w, left = 0.62, 1.65
    ax.text(0.05, 2.27, "eight weights", fontsize=9.5, va="center", color=theme.ink)
    for k, value in enumerate(ROW):
        x = left + k * w + (0.14 if k > 3 else 0)
        color = colors[k // 4] if value else theme.muted
        theme.box(ax, (x, 2.08), w - 0.08, 0.38, f"{value:g}", color=color, fill=bool(value),
                  size=10, rounding=0.03)
        ax.text(x + w / 2 - 0.04, 2.56, str(k % 4), fontsize=9, ha="center", color=theme.muted)
    ax.text(0.05, 2.6, "place in the group", fontsize=9, va="center", color=theme.muted)
    ax.text(0.05, 1.42, "values", fontsize=9.5, va="center", color=theme.ink)
    for i, value in enumerate(values[0].tolist()):
        x = left + i * w + (0.14 if i > 1 else 0)
        theme.box(ax, (x, 1.23), w - 0.08, 0.38, f"{value:g}", color=colors[i // 2], fill=True,
                  size=10, rounding=0.03)
    ax.text(0.05, 0.62, "positions", fontsize=9.5, va="center", color=theme.ink)
    for i, (place, name) in enumerate(((byte & 3, "first"), (byte >> 2 & 3, "second"),
                                       (byte >> 4 & 3, "first"), (byte >> 6, "second"))):
        x = left + i * w + (0.14 if i > 1 else 0)
        theme.box(ax, (x, 0.43), w - 0.08, 0.38, f"{place:02b}", color=colors[i // 2], size=10,
                  rounding=0.03)
        ax.text(x + w / 2 - 0.04, 0.24, name, fontsize=9, ha="center", color=theme.muted)
    x = left + 4 * w + 0.5
    low, high = byte & 15, byte >> 4
    ax.text(x, 1.42, "4 × 16 bits", fontsize=9.5, va="center", color=theme.ink)
    ax.text(x, 0.72, f"left group:   {low & 3} + 4 × {low >> 2} = {low}", fontsize=9.5,
            va="center", color=theme.ink)
    ax.text(x, 0.46, f"right group:  {high & 3} + 4 × {high >> 2} = {high}", fontsize=9.5,
            va="center", color=theme.ink)
    ax.text(x, 0.2, f"the byte:     {low} + 16 × {high} = {byte}", fontsize=9.5, va="center",
            color=theme.ink)
    return fig
