"""Two prompts with a common beginning: chained digests, and the blocks that they share."""


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.7)
    w, h, gap, x0 = 1.3, 0.5, 0.27, 0.95
    prompts = (
        (2.86, "A", theme.blue, ("You are a", "helpful shop", "where is my", "parcel ?")),
        (0.42, "B", theme.vermilion, ("You are a", "helpful shop", "do you sell", "green tea")),
    )
    pool = ((4, "named"), (9, "named"), (1, "named"), (6, "partial"), (3, "named"), (7, "named"))

    def at(i):
        return x0 + i * (w + gap)

    for y, who, color, words in prompts:
        ax.text(0.1, y + h / 2, f"prompt {who}", fontsize=9.5, va="center", color=color,
                fontweight="bold")
        for i, word in enumerate(words):
            partial = who == "A" and i == 3
            theme.box(ax, (at(i), y), w, h, word, color=color, size=9.2,
                      linestyle="--" if partial else "-")
    # The chain of each.
    for y, who, names in ((2.32, "A", ("d1", "d2", "d3")), (1.1, "B", ("d1", "d2", "d3'", "d4'"))):
        color = theme.blue if who == "A" else theme.vermilion
        prompt_y = 2.86 if who == "A" else 0.42 + h
        ax.text(0.1, y + 0.15, "root", fontsize=9.5, va="center", family="monospace")
        theme.arrow(ax, (0.5, y + 0.15), (at(0) + 0.37, y + 0.15))
        for i, name in enumerate(names):
            theme.box(ax, (at(i) + 0.37, y), 0.56, 0.3, name, size=9.5, color=color, rounding=0.04)
            if i:
                theme.arrow(ax, (at(i - 1) + 0.93, y + 0.15), (at(i) + 0.37, y + 0.15))
            ends = (prompt_y, y + 0.3) if who == "A" else (prompt_y, y)
            theme.arrow(ax, (at(i) + 0.65, ends[0]), (at(i) + 0.65, ends[1]), color=color)
        if who == "A":
            ax.text(at(3) + 0.65, y + 0.15, "not full: no name", fontsize=9, ha="center",
                    va="center", color=theme.muted)
    # The pool between them.
    y = 1.66
    ax.text(0.1, y + 0.19, "pool", fontsize=9.5, va="center", fontweight="bold")
    places = [at(0) + 0.23, at(1) + 0.23, at(2) - 0.2, at(3) - 0.16, at(2) + 0.6, at(3) + 0.66]
    owners = ("AB", "AB", "A", "A", "B", "B")
    for x, (block, kind), own in zip(places, pool, owners, strict=True):
        color = {"AB": theme.green, "A": theme.blue, "B": theme.vermilion}[own]
        theme.box(ax, (x, y), 0.72 if own != "AB" else 0.84, 0.38,
                  f"{block}  ·{len(own)}", color=color, size=9.5, rounding=0.04,
                  linestyle="--" if kind == "partial" else "-")
    ax.text(0.1, 0.16, "In the pool: the number of the block and, after the dot, of its owners. "
            "Equal digests are one block.", fontsize=9, va="center", color=theme.muted)
    return fig
