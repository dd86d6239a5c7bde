"""The twenty bytes of a Q4_1 block (chapter 5)."""

from matplotlib.patches import Rectangle


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.35)
    width, left, y = 0.345, 0.15, 1.25
    for i in range(20):
        color = (theme.blue if i < 2 else theme.vermilion if i < 4 else
                 theme.amber if i == 4 else theme.muted)
        ax.add_patch(Rectangle((left + i * width, y), width, 0.42, facecolor=color,
                               alpha=0.3 if i < 5 else 0.12, edgecolor="none"))
        ax.add_patch(Rectangle((left + i * width, y), width, 0.42, facecolor="none",
                               edgecolor=theme.ink if i < 5 else theme.muted, linewidth=0.9))
        ax.text(left + (i + 0.5) * width, y + 0.21, str(i), ha="center", va="center", fontsize=9,
                color=theme.ink)
    for first, last, words in ((0, 2, "scale d\nfloat16"), (2, 4, "minimum m\nfloat16"),
                               (4, 20, "32 codes of four bits, two in a byte")):
        ax.text(left + (first + last) / 2 * width, y + 0.74, words, ha="center", va="center",
                fontsize=9, color=theme.ink)
        ax.plot([left + first * width + 0.03, left + last * width - 0.03], [y + 0.49] * 2,
                color=theme.muted, lw=1)
    big, low = 1.0, 0.2
    x = 2.2
    theme.arrow(ax, (left + 4.5 * width, y), (x, low + 0.55), color=theme.amber)
    for i, (words, color) in enumerate((("code 16", theme.purple), ("code 0", theme.green))):
        ax.add_patch(Rectangle((x + i * 1.3, low), 1.3, 0.45, facecolor=color, alpha=0.25,
                               edgecolor="none"))
        ax.add_patch(Rectangle((x + i * 1.3, low), 1.3, 0.45, facecolor="none",
                               edgecolor=theme.ink, linewidth=1))
        ax.text(x + (i + 0.5) * 1.3, low + 0.225, words, ha="center", va="center", fontsize=10,
                color=theme.ink)
        ax.text(x + (i + 0.5) * 1.3, low - 0.11, ("bits 7 to 4", "bits 3 to 0")[i], ha="center",
                va="center", fontsize=8.8, color=theme.muted)
    ax.text(x + 2.6 + big * 0.15, low + 0.22, "byte 4: weights are  d · code + m", fontsize=9.5,
            va="center", color=theme.ink)
    return fig
