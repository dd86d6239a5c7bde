"""Triton's block model: two rows of 11 numbers, one program a row, blocks of 16 and a mask."""

from matplotlib.patches import Rectangle

N, BLOCK, CELL = 11, 16, 0.325


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.0)
    colors = (theme.blue, theme.vermilion)

    # Memory: the rows end to end.
    ax.text(0.05, 2.73, "memory, two rows of n = 11 end to end", fontsize=9.5)
    memory = 0.295
    for i in range(2 * N):
        color = colors[i // N]
        ax.add_patch(Rectangle((0.1 + i * memory, 2.25), memory, 0.32, facecolor=color, alpha=0.25,
                               edgecolor="none"))
        ax.add_patch(Rectangle((0.1 + i * memory, 2.25), memory, 0.32, facecolor="none",
                               edgecolor=theme.muted, linewidth=0.7))
        ax.text(0.1 + (i + 0.5) * memory, 2.41, str(i), ha="center", va="center", fontsize=8.5)
    for row, color in enumerate(colors):
        y = 1.22 - row * 0.92
        x0 = 1.55
        ax.text(0.05, y + 0.24, f"program {row}", fontsize=9.5, va="center", color=theme.ink,
                fontweight="bold")
        ax.text(0.05, y + 0.02, f"row = {row}", fontsize=9, va="center")
        for i in range(BLOCK):
            inside = i < N
            x = x0 + i * CELL
            ax.add_patch(Rectangle((x, y), CELL, 0.34, facecolor=theme.page, edgecolor="none",
                                   zorder=2))
            ax.add_patch(Rectangle((x, y), CELL, 0.34, facecolor=color if inside else "none",
                                   alpha=0.25, edgecolor="none", zorder=3))
            ax.add_patch(Rectangle((x, y), CELL, 0.34, facecolor="none",
                                   hatch=None if inside else "////", edgecolor=theme.muted,
                                   linewidth=0.7, zorder=4))
            if inside:
                ax.text(x + CELL / 2, y + 0.17, str(row * N + i), ha="center", va="center",
                        fontsize=8.5, zorder=5)
        start = 0.1 + row * N * memory
        theme.arrow(ax, (start + memory / 2, 2.23), (x0 + CELL / 2, y + 0.36), color=color,
                    curve=0.0).set_zorder(1)
        if row == 0:
            ax.text(x0 + (N + BLOCK) / 2 * CELL, y + 0.52, "masked: columns ≥ n", fontsize=9,
                    ha="center")
    ax.text(1.55, 0.1, "columns = tl.arange(0, 16): one block; 11 lanes load, 5 are switched off",
            fontsize=9)
    return fig
