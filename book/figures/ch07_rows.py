"""Rows that each step computes: everything again, or the newest token beside the cache."""

from matplotlib.patches import Rectangle

PROMPT, NEW = 6, 7
SIZE = 0.215


def grid(theme, ax, x, top, cached):
    """One row a step, one column a token; x, top: the upper left corner in inches."""
    for step in range(NEW):
        for token in range(PROMPT + step):
            computed = not cached or step == 0 or token == PROMPT + step - 1
            ax.add_patch(Rectangle(
                (x + token * SIZE, top - (step + 1) * SIZE), SIZE, SIZE,
                facecolor=theme.vermilion if computed else theme.surface,
                edgecolor=theme.page if computed else theme.muted,
                linewidth=0.8, hatch=None if computed else "///",
            ))
        rows = PROMPT + step if not cached or step == 0 else 1
        ax.text(x + (PROMPT + step) * SIZE + 0.06, top - (step + 0.5) * SIZE, f"{rows}",
                fontsize=9, va="center", color=theme.ink)


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.75)
    top = 2.2
    for x, cached, title in ((0.45, False, "recompute everything"), (3.95, True, "KV cache")):
        grid(theme, ax, x, top, cached)
        ax.text(x, top + 0.3, title, fontsize=10.5, fontweight="bold", va="center")
        ax.text(x, top + 0.1, "tokens, oldest first", fontsize=9, color=theme.muted, va="center")
        ax.text(x - 0.1, top - NEW * SIZE / 2, "steps", fontsize=9, rotation=90, va="center",
                ha="right", color=theme.muted)
        naive = NEW * PROMPT + NEW * (NEW - 1) // 2
        total = PROMPT + NEW - 1 if cached else naive
        ax.text(x, top - NEW * SIZE - 0.16, f"{total} rows computed", fontsize=9.5, va="center")
    for x, computed, words in ((0.45, True, "computed in this step"),
                               (3.95, False, "keys and values read from the cache")):
        ax.add_patch(Rectangle((x, 0.1), 0.18, 0.18, linewidth=0.8,
                               facecolor=theme.vermilion if computed else theme.surface,
                               edgecolor=theme.page if computed else theme.muted,
                               hatch=None if computed else "///"))
        ax.text(x + 0.26, 0.19, words, fontsize=9, va="center")
    return fig
