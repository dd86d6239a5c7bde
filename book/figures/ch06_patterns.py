"""The same small matrix with half of its weights gone, in three patterns."""

import torch

from infero.compress import magnitude

ROWS = COLUMNS = 16


def masks():
    """(title, what is left, how it can be stored) of three patterns; the same weights each time."""
    weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(6))
    free = magnitude.keep_largest(weight.abs(), 0.5, per="matrix")
    pairs = magnitude.keep_n_of_m(weight.abs(), 2, 4)
    columns = torch.zeros(COLUMNS, dtype=torch.bool)
    columns[weight.square().sum(0).topk(COLUMNS // 2).indices] = True
    return (("unstructured", free, "any place"), ("2:4", pairs, "two of every four in a row"),
            ("structured", columns.expand(ROWS, COLUMNS), "whole columns"))


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.95)
    size = 0.133
    for i, (title, keep, words) in enumerate(masks()):
        left = 0.12 + 2.42 * i
        for r in range(ROWS):
            for c in range(COLUMNS):
                xy = (left + c * size, 2.35 - r * size)
                stays = bool(keep[r, c])
                ax.add_patch(plt_rectangle(xy, size * 0.86, theme.blue if stays else "none",
                                           theme.blue if stays else theme.grid))
        if title == "2:4":
            for c in range(4, COLUMNS, 4):
                x = left + c * size - 0.07 * size
                ax.plot([x, x], [2.35 - (ROWS - 1) * size - 0.02, 2.35 + size], lw=0.9,
                        color=theme.muted)
        ax.text(left, 2.68, title, fontsize=10.5, fontweight="bold", color=theme.ink)
        ax.text(left, 0.12, words, fontsize=9.5, color=theme.ink)
    return fig


def plt_rectangle(xy, side, face, edge):
    from matplotlib.patches import Rectangle

    return Rectangle(xy, side, side, facecolor=face, edgecolor=edge, linewidth=0.7)
