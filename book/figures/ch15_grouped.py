"""Pairs of token and expert, sorted by expert, cut into tiles."""

import torch

from infero import grouped

CHOSEN = [[0, 2], [2, 3], [2, 0], [0, 2], [2, 3], [0, 2]]
EXPERTS, BLOCK = 4, 4


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.7)
    picks = torch.tensor(CHOSEN)
    routing = grouped.route(picks, EXPERTS)
    tiles = grouped.tile_list(routing.starts, picks.numel(), BLOCK).tolist()
    size = 0.26
    for x, words in ((0.1, "token: experts"), (2.3, "pairs by expert"),
                     (4.75, "tile: expert, first row")):
        ax.text(x, 3.5, words, fontsize=10, fontweight="bold", color=theme.ink)
    for token, experts in enumerate(CHOSEN):
        y = 3.05 - token * 0.36
        ax.text(0.35, y + 0.13, f"{token}", fontsize=9.5, va="center", color=theme.ink)
        for i, e in enumerate(experts):
            theme.box(ax, (0.75 + i * 0.42, y), 0.36, size, f"e{e}", color=theme.palette[e],
                      size=9, rounding=0.03)
    for row, pair in enumerate(routing.order.tolist()):
        expert = CHOSEN[pair // 2][pair % 2]
        y = 3.15 - row * (size + 0.005)
        ax.text(2.55, y + 0.12, f"{row}", fontsize=8.5, ha="right", va="center",
                color=theme.muted)
        theme.box(ax, (2.65, y), 0.95, size - 0.03, f"e{expert}, token {pair // 2}", size=8.5,
                  color=theme.palette[expert], rounding=0.03)
    for i, (expert, first) in enumerate(tiles):
        y = 3.0 - i * 0.42
        if expert < 0:
            theme.box(ax, (4.9, y), 1.0, 0.32, "–", color=theme.muted, fill=False, size=9,
                      rounding=0.03)
            continue
        end = min(first + BLOCK, int(routing.starts[expert + 1]))
        theme.box(ax, (4.9, y), 1.0, 0.32, f"e{expert}, row {first}", color=theme.palette[expert],
                  size=9, rounding=0.03)
        ax.text(6.0, y + 0.16, f"rows {first} to {end - 1}", fontsize=9, va="center",
                color=theme.muted)
        middle = 3.15 - (first + end - 1) / 2 * (size + 0.005) + 0.12
        theme.arrow(ax, (3.65, middle), (4.85, y + 0.16), color=theme.palette[expert])
    return fig
