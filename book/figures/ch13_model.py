"""A launch: grid, blocks, warps and threads, and the part of the chip that each of them meets."""

from matplotlib.patches import Rectangle


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.3)

    def heading(x, words):
        ax.text(x, 3.08, words, fontsize=9.5, fontweight="bold", ha="center")

    # The grid: many blocks.
    heading(0.95, "grid: one launch")
    for i in range(20):
        x, y = 0.12 + (i % 5) * 0.34, 2.55 - (i // 5) * 0.34
        chosen = i == 9
        ax.add_patch(Rectangle((x, y), 0.28, 0.28, facecolor=theme.blue if chosen else
                               theme.surface, edgecolor=theme.blue if chosen else theme.muted,
                               linewidth=1))
        ax.text(x + 0.14, y + 0.14, str(i), ha="center", va="center", fontsize=8.5,
                color=theme.page if chosen else theme.ink)
    ax.text(0.95, 1.22, "20 blocks, in any order", fontsize=9, ha="center")

    # A block: warps.
    heading(3.0, "block: up to 1,024 threads")
    theme.box(ax, (2.2, 1.5), 1.6, 1.34, color=theme.blue)
    for w in range(4):
        y = 2.55 - w * 0.32
        ax.add_patch(Rectangle((2.3, y), 1.4, 0.24, facecolor=theme.vermilion if w == 1 else
                               theme.page, alpha=1, edgecolor=theme.vermilion if w == 1 else
                               theme.muted, linewidth=1))
        ax.text(3.0, y + 0.12, f"warp {w}", ha="center", va="center", fontsize=8.8,
                color=theme.page if w == 1 else theme.ink)
    theme.arrow(ax, (1.78, 2.33), (2.18, 2.2), color=theme.blue)
    ax.text(3.0, 1.22, "share one scratchpad", fontsize=9, ha="center")

    # A warp: 32 threads.
    heading(5.65, "warp: 32 threads, one instruction")
    for t in range(32):
        x, y = 4.5 + (t % 16) * 0.145, 2.5 - (t // 16) * 0.3
        ax.add_patch(Rectangle((x, y), 0.115, 0.22, facecolor=theme.vermilion, alpha=0.35,
                               edgecolor=theme.vermilion, linewidth=0.8))
    theme.arrow(ax, (3.72, 2.35), (4.45, 2.4), color=theme.vermilion)
    ax.text(5.65, 1.98, "thread = lane 0 … 31", fontsize=9, ha="center")
    ax.text(5.65, 1.22, "32 addresses at once", fontsize=9, ha="center")

    # What each meets.
    ax.plot([0.1, 7.1], [1.02, 1.02], color=theme.grid, linewidth=1)
    theme.box(ax, (0.12, 0.3), 1.66, 0.5, "all SMs\nHBM, L2", size=9)
    theme.box(ax, (2.2, 0.3), 1.6, 0.5, "one SM\nshared memory", color=theme.blue, size=9)
    theme.box(ax, (4.5, 0.3), 2.3, 0.5, "one of its four schedulers\nregisters",
              color=theme.vermilion, size=9)
    for x in (0.95, 3.0, 5.65):
        theme.arrow(ax, (x, 1.16), (x, 0.82))
    ax.text(0.12, 0.08, "where it runs, and the memory it brings with it", fontsize=9,
            color=theme.muted)
    return fig
