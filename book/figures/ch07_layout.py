"""The cache tensor: layers, slots, KV heads, features; what one decode step writes and reads."""

from matplotlib.patches import Rectangle

SLOT_W, SLOT_H = 0.29, 0.3
BLOCK = 6
LENGTHS = (5, 2, 4)  # tokens of each request before the step


def plane(theme, ax, x, y, alpha, label):
    """One layer's slots in three blocks; the lower left corner in inches."""
    for block, length in enumerate(LENGTHS):
        for i in range(BLOCK):
            new, old = i == length, i < length
            color = theme.vermilion if new else theme.sky if old else theme.surface
            ax.add_patch(Rectangle((x + (block * BLOCK + i) * SLOT_W, y), SLOT_W, SLOT_H,
                                   facecolor=color, edgecolor=theme.muted, linewidth=0.7,
                                   alpha=alpha if (new or old) else 1.0))
    for block in range(len(LENGTHS) + 1):
        at = x + block * BLOCK * SLOT_W
        ax.plot([at, at], [y - 0.03, y + SLOT_H + 0.03], color=theme.ink, linewidth=1.4)
    ax.text(x - 0.08, y + SLOT_H / 2, label, fontsize=9, ha="right", va="center")


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.25)
    x, width = 0.95, SLOT_W * BLOCK
    for row, label in enumerate(("layer 0", "layer 1", "layer 29")):
        y = 2.35 - row * 0.44 - (0.22 if row == 2 else 0)
        plane(theme, ax, x, y, 0.75, label)
    ax.text(x + 1.5 * width, 1.72, "⋮", fontsize=11, ha="center", va="center")
    for block, length in enumerate(LENGTHS):
        ax.text(x + (block + 0.5) * width, 2.86, f"block of request {block}", fontsize=9,
                ha="center")
        ax.text(x + (block + 0.5) * width, 2.72, f"{length} tokens + 1", fontsize=9,
                ha="center", va="center", color=theme.muted)
    # One slot enlarged.
    slot = x + 2 * SLOT_W
    theme.box(ax, (0.95, 0.3), 2.4, 0.66)
    for head in range(3):
        theme.box(ax, (1.03 + head * 0.76, 0.38), 0.7, 0.3, f"head {head}", size=8.6,
                  color=theme.blue, rounding=0.03)
    ax.text(1.02, 0.82, "a slot of k: 3 heads × 64 features", fontsize=8.8, va="center")
    for corner in (0.95, 3.35):
        ax.plot([corner, slot if corner < 1 else slot + SLOT_W], [0.96, 1.25], color=theme.muted,
                linewidth=0.8)
    lx = 3.75
    for i, (color, words) in enumerate((
        (theme.vermilion, "written by this step, then read"),
        (theme.sky, "read by this step"),
        (theme.surface, "set aside, not yet used"),
    )):
        y = 0.78 - i * 0.24
        ax.add_patch(Rectangle((lx, y), 0.2, 0.16, facecolor=color, edgecolor=theme.muted,
                               linewidth=0.7, alpha=0.75 if i < 2 else 1.0))
        ax.text(lx + 0.28, y + 0.08, words, fontsize=9, va="center")
    ax.text(0.1, 3.1, "k  [layers, slots, KV heads, features]; v has the same shape",
            fontsize=10.5, fontweight="bold", va="center")
    return fig
