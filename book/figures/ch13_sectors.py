"""Three access patterns of a warp, and the 32-byte sectors that each of them moves."""

from matplotlib.patches import Rectangle

PATTERNS = (
    ("neighbours: x[t]", list(range(32))),
    ("every second: x[2 t]", [2 * t for t in range(32)]),
    ("shifted by 3: x[t + 3]", [t + 3 for t in range(32)]),
    ("a column: x[8 t]", [8 * t for t in range(32)]),
)
SHOWN = 9  # sectors drawn


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.9)
    left, width = 1.75, 0.525
    cell = width / 8
    for row, (name, indexes) in enumerate(PATTERNS):
        y = 3.18 - row * 0.93
        touched = sorted({i // 8 for i in indexes})
        used = len(set(indexes)) * 4 / (len(touched) * 32)
        ax.text(0.05, y + 0.2, name, fontsize=9.5, va="center")
        ax.text(0.05, y - 0.02, f"{len(touched)} sectors, {100 * used:.3g} % used", fontsize=9,
                va="center", color=theme.muted)
        for s in range(SHOWN):
            x = left + s * (width + 0.05)
            hit = s in touched
            ax.add_patch(Rectangle((x, y), width, 0.28, facecolor=theme.blue if hit else "none",
                                   alpha=0.16 if hit else 1, edgecolor="none"))
            for c in range(8):
                wanted = 8 * s + c in indexes
                ax.add_patch(Rectangle((x + c * cell, y), cell, 0.28, linewidth=0.6,
                                       facecolor=theme.vermilion if wanted else "none",
                                       edgecolor=theme.muted))
            if hit:
                ax.add_patch(Rectangle((x, y), width, 0.28, facecolor="none", linewidth=1.6,
                                       edgecolor=theme.blue))
            if row == 0:
                ax.text(x + width / 2, y + 0.37, f"{32 * s}–{32 * s + 31}", fontsize=8.5,
                        ha="center", color=theme.muted)
        if max(touched) >= SHOWN:
            ax.text(left + SHOWN * (width + 0.05) + 0.02, y + 0.13, "…", fontsize=11, va="center")
    ax.text(left, 3.72, "byte addresses; a framed group of eight 4-byte numbers is one sector "
            "that is moved", fontsize=9, color=theme.ink)
    return fig
