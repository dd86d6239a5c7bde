"""From a position of a request to a slot of the cache, through the block table (chapter 8)."""

from matplotlib.patches import Rectangle

W = 0.56
TABLE = (7, 2, 9)
POSITION = 6  # the one that is followed


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.5)
    x0 = 1.05
    colors = (theme.blue, theme.vermilion, theme.green)

    def cells(x, y, n, labels, color, used, height=0.36):
        for i in range(n):
            ax.add_patch(Rectangle((x + i * W * 0.8, y), W * 0.8, height, facecolor=color,
                                   alpha=0.28 if i < used else 0.05, edgecolor="none"))
            ax.add_patch(Rectangle((x + i * W * 0.8, y), W * 0.8, height, facecolor="none",
                                   edgecolor=theme.muted, linewidth=0.8))
            if labels[i] != "":
                ax.text(x + (i + 0.5) * W * 0.8, y + height / 2, str(labels[i]), ha="center",
                        va="center", fontsize=9, color=theme.ink if i < used else theme.muted)

    def name(y, words):
        ax.text(0.08, y, words, fontsize=9.5, va="center")

    # Row 1: the request's positions.
    y1 = 2.75
    name(y1 + 0.18, "positions")
    for entry, color in enumerate(colors):
        used = 4 if entry < 2 else 2
        cells(x0 + entry * 1.95, y1, 4, range(4 * entry, 4 * entry + 4), color, used)
    # Row 2: the block table.
    y2 = 1.72
    name(y2 + 0.17, "block table")
    for entry, (block, color) in enumerate(zip(TABLE, colors, strict=True)):
        x = x0 + entry * 1.95 + 0.65
        theme.box(ax, (x, y2), 0.5, 0.34, str(block), color=color, size=10.5)
        ax.text(x - 0.06, y2 + 0.17, f"entry {entry}", fontsize=9, ha="right", va="center",
                color=theme.muted)
        theme.arrow(ax, (x + 0.25, y1), (x + 0.25, y2 + 0.34), color=color)
    # Row 3: the cache, blocks 1 to 9 of it, one slot a cell.
    y3, size, left = 0.62, 0.163, 1.05
    name(y3 + 0.16, "cache")
    owner = dict(zip(TABLE, colors, strict=True))
    for block in range(1, 10):
        bx = left + (block - 1) * 4 * size
        for i in range(4):
            used = block in owner and (block != 9 or i < 2)
            ax.add_patch(Rectangle((bx + i * size, y3), size, 0.32, edgecolor=theme.muted,
                                   linewidth=0.5, facecolor=owner.get(block, theme.surface),
                                   alpha=0.55 if used else 0.16))
        ax.add_patch(Rectangle((bx, y3), 4 * size, 0.32, facecolor="none", edgecolor=theme.ink,
                               linewidth=1.3 if block in owner else 0.8))
        ax.text(bx + 2 * size, y3 - 0.13, f"block {block}", ha="center", va="center", fontsize=8.6,
                color=theme.ink if block in owner else theme.muted)
    for entry, (block, color) in enumerate(zip(TABLE, colors, strict=True)):
        theme.arrow(ax, (x0 + entry * 1.95 + 0.9, y2),
                    (left + (block - 1) * 4 * size + 2 * size, y3 + 0.33), color=color)
    # The followed position.
    entry, place = divmod(POSITION, 4)
    px = x0 + entry * 1.95 + (place + 0.5) * W * 0.8
    sx = left + (TABLE[entry] - 1) * 4 * size + (place + 0.5) * size
    for x, y, w, h in ((px - W * 0.4, y1, W * 0.8, 0.36), (sx - size / 2, y3, size, 0.32)):
        ax.add_patch(Rectangle((x, y), w, h, facecolor="none", edgecolor=theme.accent,
                               linewidth=2.4, zorder=5))
    ax.text(px, y1 + 0.52, "position 6 = 1 × 4 + 2", ha="center", va="center", fontsize=9.5)
    ax.annotate("slot 10 = 2 × 4 + 2", (sx, y3 + 0.01), xytext=(sx + 0.25, 0.2),
                fontsize=9.5, va="center", ha="left",
                arrowprops={"arrowstyle": "-", "color": theme.accent, "linewidth": 1.2})
    return fig
