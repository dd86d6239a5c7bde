"""The six launches of a decoder layer, and what passes between them (chapter 16)."""

BOXES = (
    ("1", ("norm", "× W of q, k, v"), "q k v"),
    ("2", ("norm of heads", "RoPE", "→ KV cache"), "q"),
    ("3", ("attention", "over the pages", "sum of splits"), "mixed"),
    ("4", ("× W of o", "+ residual"), "x"),
    ("5", ("norm", "× W gate, up", "SiLU · mul"), "h"),
    ("6", ("× W down", "+ residual"), "x"),
)
CUTS = ("all heads\nbefore the\npages", "keys in the\ncache", "all heads", "the whole\nrow (norm)",
        "the whole\nhidden row")


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.75)
    width, gap, y, height = 0.98, 0.225, 1.1, 1.02
    weights = {0, 3, 4, 5}
    for i, (number, lines, out) in enumerate(BOXES):
        x = 0.1 + i * (width + gap)
        color = theme.blue if i in weights else theme.green if i == 2 else theme.amber
        theme.box(ax, (x, y), width, height, color=color)
        ax.text(x + width / 2, y + height + 0.17, number, ha="center", va="center", fontsize=12,
                fontweight="bold", color=color)
        for line, words in enumerate(lines):
            ax.text(x + width / 2, y + height / 2 + 0.24 * ((len(lines) - 1) / 2 - line), words,
                    ha="center", va="center", fontsize=8.6)
        if i < len(CUTS):
            theme.arrow(ax, (x + width, y + height / 2), (x + width + gap, y + height / 2))
            ax.text(x + width + gap / 2, y - 0.14, out, ha="center", va="top", fontsize=8.6,
                    color=theme.ink)
            ax.text(x + width + gap / 2, y - 0.42, CUTS[i], ha="center", va="top", fontsize=8.5,
                    color=theme.muted, linespacing=1.15)
    ax.text(0.1, 2.62, "weights from memory", fontsize=9, color=theme.blue, va="center")
    ax.text(1.85, 2.62, "keys and values", fontsize=9, color=theme.green, va="center")
    ax.text(3.15, 2.62, "almost nothing", fontsize=9, color=theme.amber, va="center")
    ax.text(0.1, 0.07, "passed on, and why the cut is there:", fontsize=8.6, color=theme.muted)
    return fig
