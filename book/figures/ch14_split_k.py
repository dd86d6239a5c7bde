"""One query over a paged context: blocks, splits, partial results, one reduction (chapter 14)."""

from matplotlib.patches import Rectangle

SPLITS = (4, 4, 2, 0)  # blocks of each
TABLE = (7, 2, 9, 4, 12, 1, 5, 10, 3, 8)


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.9)
    colors = (theme.blue, theme.green, theme.purple, theme.muted)
    ax.text(0.05, 2.62, "block table", fontsize=9.5, va="center")
    at, centers = 0, []
    for s, count in enumerate(SPLITS):
        x = 1.15 + s * 1.52
        for b in range(max(count, 1)):
            real = b < count
            ax.add_patch(Rectangle((x + b * 0.33, 2.45), 0.33, 0.34, facecolor=colors[s],
                                   edgecolor=theme.page if real else theme.muted, linewidth=1,
                                   alpha=0.55 if real else 0.0))
            if real:
                ax.text(x + b * 0.33 + 0.165, 2.62, str(TABLE[at]), ha="center", va="center",
                        fontsize=9)
                at += 1
        if count == 0:
            ax.text(x + 0.66, 2.62, "no blocks", ha="center", va="center", fontsize=9,
                    color=theme.muted)
        center = x + 0.66
        centers.append(center)
        theme.box(ax, (x, 1.55), 1.32, 0.44, f"program, split {s}", color=colors[s], size=9)
        theme.arrow(ax, (center, 2.44), (center, 2.0), color=colors[s])
        words = "out 0,  lse −∞" if count == 0 else f"out$_{s}$,  lse$_{s}$"
        theme.box(ax, (x + 0.06, 0.87), 1.2, 0.36, words, color=colors[s], size=9)
        theme.arrow(ax, (center, 1.55), (center, 1.24), color=colors[s])
        theme.arrow(ax, (center, 0.87), (3.4 + 0.55 * (s - 1.5), 0.5), color=colors[s])
    theme.box(ax, (2.1, 0.06), 2.75, 0.42, r"combine: $\sum w_s\,$out$_s$ / $\sum w_s$,"
              r"  $w_s = e^{\mathrm{lse}_s - m}$", color=theme.accent, size=9)
    ax.text(0.05, 1.77, "same query,", fontsize=9.5, va="bottom")
    ax.text(0.05, 1.73, "4 programs", fontsize=9.5, va="top")
    ax.text(0.05, 1.05, "partial\nresults", fontsize=9.5, va="center")
    return fig
