"""A word of eight weights: shifted, masked, made a pair of float16 by an or."""

import torch

from infero.kernels.steps import matmul

VALUES = [3, 12, 0, 7, 15, 9, 1, 6]


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.9)
    word = int(matmul.pack_nibbles(torch.tensor([VALUES], dtype=torch.uint8))) & 0xFFFFFFFF
    size = 0.5
    left = 1.5
    colors = [theme.blue, theme.vermilion, theme.green, theme.purple]

    def cells(y, number, used, labels=False):
        for place in range(8):  # from the highest nibble
            p = 7 - place
            x = left + place * size + (0.12 if place > 3 else 0)
            digit = f"{number >> 4 * p & 15:X}"
            pair = used.get(p)
            theme.box(ax, (x, y), size - 0.06, 0.34, digit,
                      color=theme.muted if pair is None else colors[pair],
                      fill=pair is not None, size=10, rounding=0.03)
            if labels:
                ax.text(x + size / 2 - 0.03, y + 0.46, f"w{matmul.ORDER[p]}", fontsize=9,
                        ha="center", color=theme.ink)

    ax.text(0.05, 3.33, "the word", fontsize=9.5, va="center", color=theme.ink)
    cells(3.15, word, {p: p % 4 for p in range(8)}, labels=True)
    for k in range(4):
        y = 2.45 - 0.46 * k
        part = word >> 4 * k & 0x000F000F
        ax.text(0.05, y + 0.17, f">> {4 * k}, & 000F000F", fontsize=9, va="center",
                color=theme.ink)
        cells(y, part, {0: k, 4: k})
        ax.text(5.85, y + 0.17, f"w{2 * k + 1} = {part >> 16},  w{2 * k} = {part & 15}",
                fontsize=9.5, va="center", color=theme.ink)
    part = (word & 0x000F000F) | 0x64006400
    ax.text(0.05, 0.47, "k = 0: | 64006400", fontsize=9, va="center", color=theme.ink)
    cells(0.3, part, {0: 0, 4: 0})
    upper, lower = part >> 16, part & 0xFFFF
    ax.text(5.85, 0.62, f"1024 + {upper - 0x6400} = {upper - 0x6000:d}", fontsize=9.5,
            va="center", color=theme.ink)
    ax.text(5.85, 0.32, f"1024 + {lower - 0x6400} = {lower - 0x6000:d}", fontsize=9.5,
            va="center", color=theme.ink)
    ax.text(left + 2 * size - 0.03, 0.08, "upper half", fontsize=9, ha="center", color=theme.muted)
    ax.text(left + 6 * size + 0.09, 0.08, "lower half", fontsize=9, ha="center",
            color=theme.muted)
    return fig
