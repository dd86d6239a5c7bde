"""Attention masks of a prompt, a chunk and one decoded token, and grouped query heads."""

CELL = 0.155


def mask(theme, ax, x, top, queries, context, title):
    """A grid whose last query sees the last key; x, top: its upper left corner in inches."""
    for q in range(queries):
        for k in range(context):
            seen = k <= context - queries + q
            ax.add_patch(_cell(theme, x + k * CELL, top - (q + 1) * CELL, seen,
                               k == context - queries + q))
    ax.text(x, top + 0.09, title, fontsize=9, va="bottom")


def _cell(theme, x, y, seen, own):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), CELL, CELL, facecolor=(theme.blue if own else theme.sky) if seen
                     else theme.surface, alpha=1.0 if own or not seen else 0.55,
                     edgecolor=theme.muted, linewidth=0.6)


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.0)
    mask(theme, ax, 0.55, 2.55, 5, 5, "a prompt of 5")
    mask(theme, ax, 0.55, 1.38, 3, 8, "3 new tokens after 5")
    mask(theme, ax, 0.55, 0.52, 1, 9, "1 decoded token after 8")
    ax.text(0.42, 2.17, "queries", fontsize=9, rotation=90, va="center", ha="center",
            color=theme.muted)
    ax.text(0.55 + 4.5 * CELL, 0.2, "keys, oldest first", fontsize=9, ha="center",
            color=theme.muted)
    x = 2.25
    for y, label in ((2.4, "itself"), (2.12, "seen"), (1.84, "hidden")):
        ax.add_patch(_cell(theme, x, y, label != "hidden", label == "itself"))
        ax.text(x + 0.24, y + CELL / 2, label, fontsize=9, va="center")
    colors = (theme.blue, theme.vermilion, theme.green)
    ax.text(5.1, 2.82, "9 query heads", fontsize=9, ha="center")
    ax.text(5.1, 0.12, "3 KV heads: a third of the cache", fontsize=9, ha="center")
    for h in range(9):
        hx = 3.35 + 0.41 * h
        theme.box(ax, (hx, 2.3), 0.34, 0.36, f"q{h}", color=colors[h // 3], size=9)
    for g in range(3):
        gx = 3.35 + 1.23 * g
        theme.box(ax, (gx + 0.2, 0.42), 0.76, 0.42, f"k{g}  v{g}", color=colors[g], size=9)
        for h in range(3):
            theme.arrow(ax, (3.35 + 0.41 * (3 * g + h) + 0.17, 2.3), (gx + 0.58, 0.86),
                        color=colors[g])
    return fig
