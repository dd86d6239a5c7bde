"""The grid of tiles of the score matrix, and what one program holds (chapter 14)."""

from matplotlib.patches import Rectangle

SIDE = 0.36
TILES = 6
ROW = 3


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.0)
    x0, top = 0.95, 2.45
    for i in range(TILES):
        for j in range(TILES):
            x, y = x0 + j * SIDE, top - (i + 1) * SIDE
            seen = j <= i
            face = theme.surface if not seen else (theme.amber if j == i else theme.blue)
            ax.add_patch(Rectangle((x, y), SIDE, SIDE, facecolor=face, edgecolor=theme.page,
                                   alpha=0.75 if seen else 1.0, linewidth=1.2))
            if j == i:
                ax.plot([x, x + SIDE], [y + SIDE, y], color=theme.page, linewidth=1.4)
            if not seen:
                ax.text(x + SIDE / 2, y + SIDE / 2, "·", ha="center", va="center",
                        color=theme.muted, fontsize=11)
    ax.text(x0, top + 0.14, "keys and values, tile 0 to 5", fontsize=9.5, va="bottom")
    ax.text(x0 - 0.12, top - TILES * SIDE / 2, "queries, tile 0 to 5", fontsize=9.5, rotation=90,
            ha="right", va="center")
    y = top - (ROW + 1) * SIDE
    ax.add_patch(Rectangle((x0 - 0.04, y - 0.03), (ROW + 1) * SIDE + 0.08, SIDE + 0.06,
                           facecolor="none", edgecolor=theme.accent, linewidth=2.2))
    keys = ((theme.blue, "no mask"), (theme.amber, "mask"), (theme.surface, "skipped"))
    for k, (color, words) in enumerate(keys):
        x = 0.95 + k * 0.95
        ax.add_patch(Rectangle((x, 0.02), 0.15, 0.15, facecolor=color, edgecolor=theme.muted,
                               alpha=0.75, linewidth=0.6))
        ax.text(x + 0.2, 0.09, words, fontsize=9, va="center")

    left = 3.95
    theme.arrow(ax, (x0 + (ROW + 1) * SIDE + 0.08, y + SIDE / 2), (left, 1.45), color=theme.accent)
    theme.box(ax, (left, 0.42), 3.12, 2.1, color=theme.accent)
    ax.text(left + 0.1, 2.36, "one program, on the chip", fontsize=9.5, va="center",
            fontweight="bold")
    held = (("Q tile", "[128, d]", "loaded once", theme.green),
            ("K, V tile", "[64, d]", "a new one each turn", theme.blue),
            ("m, ℓ", "[128]", "maximum, sum", theme.purple),
            ("a", "[128, d]", "accumulator, float32", theme.purple))
    for k, (name, shape, words, color) in enumerate(held):
        yy = 2.02 - 0.36 * k
        theme.box(ax, (left + 0.1, yy - 0.13), 0.78, 0.27, name, color=color, size=9)
        ax.text(left + 0.97, yy, shape, fontsize=9, va="center")
        ax.text(left + 1.6, yy, words, fontsize=9, va="center", color=theme.muted)
    ax.text(left + 0.1, 0.56, "stored at the end: a / ℓ", fontsize=9.5, va="center")
    return fig
