"""Which inputs one nibble of all words meets: neighbours in a word, and slices over words."""

INPUTS = 64


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.75)
    w, left = 0.103, 0.3
    rows = (
        (2.05, "eight neighbours a word (the lab's): nibble 0 of 8 words meets every eighth input",
         8, lambda k: k % 8 == 0),
        (0.75, "slices (the engine's, drawn with 64 inputs a block): nibble 0 of 16 words meets "
         "one run", 4, lambda k: k < 16),
    )
    for y, title, parts, met in rows:
        ax.text(left, y + 0.5, title, fontsize=9.5, color=theme.ink, va="center")
        for k in range(INPUTS):
            hot = met(k)
            ax.add_patch(_cell(left + k * w, y, w, 0.26, theme.vermilion if hot else theme.surface,
                               theme.muted))
        edges = range(0, INPUTS + 1, 8) if parts == 8 else range(0, INPUTS + 1, 16)
        for k in edges:
            ax.plot([left + k * w] * 2, [y - 0.08, y + 0.34], color=theme.ink, lw=1.3)
        names = ([f"word {i}" for i in range(8)] if parts == 8
                 else [f"nibble {i} of words 0 to 15" for i in range(4)])
        width = INPUTS // len(names)
        for i, name in enumerate(names):
            ax.text(left + (i + 0.5) * width * w, y - 0.2, name, fontsize=9, ha="center",
                    va="center", color=theme.muted)
    ax.text(left, 0.12, "x, input 0", fontsize=9, color=theme.muted)
    ax.text(left + INPUTS * w, 0.12, "input 63", fontsize=9, ha="right", color=theme.muted)
    return fig


def _cell(x, y, w, h, face, edge):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), w, h, facecolor=face, edgecolor=edge, linewidth=0.5)
