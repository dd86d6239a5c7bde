"""A captured decode step: fixed buffers, recorded kernels, tokens that stay (chapter 16)."""

from matplotlib.patches import Rectangle

COLUMNS = (("ids", ("7", "0", "31", "4", "0", "0", "0", "0")),
           ("source", ("−1", "2", "−1", "−1", "0", "−1", "−1", "−1")),
           ("position", ("9", "4", "57", "12", "30", "0", "0", "0")),
           ("slot", ("33", "12", "89", "60", "14", "−1", "−1", "−1")),
           ("context", ("10", "5", "58", "13", "31", "0", "0", "0")))


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.3)
    theme.box(ax, (0.08, 1.3), 0.95, 0.95, "host:\n5 requests,\nlists", color=theme.amber, size=9)
    theme.arrow(ax, (1.05, 1.78), (1.52, 1.78), "fill")
    left, top, wide, high = 1.58, 2.62, 0.6, 0.27
    for column, (name, values) in enumerate(COLUMNS):
        x = left + column * wide
        ax.text(x + wide / 2, top + 0.13, name, ha="center", va="bottom", fontsize=8.6,
                color=theme.muted)
        for row, value in enumerate(values):
            pad = row >= 5
            ax.add_patch(Rectangle((x, top - (row + 1) * high + 0.08), wide, high, linewidth=0.7,
                                   edgecolor=theme.muted, alpha=0.9,
                                   facecolor=theme.page if pad else theme.surface,
                                   hatch="////" if pad else None))
            ax.text(x + wide / 2, top - (row + 0.5) * high + 0.08, value, ha="center",
                    va="center", fontsize=9, color=theme.muted if pad else theme.ink,
                    bbox={"facecolor": theme.page, "edgecolor": "none", "pad": 0.6} if pad
                    else None)
    ax.text(left + 2.5 * wide, 0.31, "fixed buffers of the bucket for 8 (hatched: padding)",
            ha="center", fontsize=8.8)
    x = left + 5 * wide
    theme.arrow(ax, (x + 0.03, 1.78), (x + 0.42, 1.78), "replay")
    theme.box(ax, (x + 0.46, 1.02), 1.0, 1.5, color=theme.blue)
    for i, words in enumerate(("embedding", "six a layer", "six a layer", "…", "head, draw")):
        ax.text(x + 0.96, 2.33 - 0.27 * i, words, ha="center", va="center", fontsize=8.8)
    theme.box(ax, (x + 0.46, 0.12), 1.0, 0.46, "drawn tokens", color=theme.green, size=9)
    theme.arrow(ax, (x + 0.96, 1.0), (x + 0.96, 0.6))
    ax.plot([x + 1.47, x + 1.58, x + 1.58, left + 1.5 * wide, left + 1.5 * wide],
            [0.35, 0.35, 3.12, 3.12, 2.98], color=theme.green, linewidth=1.3)
    ax.annotate("", (left + 1.5 * wide, 2.9), (left + 1.5 * wide, 3.05),
                arrowprops={"arrowstyle": "-|>", "color": theme.green, "linewidth": 1.3})
    ax.text(left + 1.6 * wide, 3.16, "the next step finds them where they are", fontsize=8.8,
            va="bottom", color=theme.green)
    ax.set_ylim(0, 3.4)
    return fig
