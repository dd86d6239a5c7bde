"""The thread that holds each weight of a 16 x 8 tile, for mma.m16n8k16."""


def draw(theme):
    fig, ax = theme.canvas(7.2, 4.0)
    w, h, left, top = 0.46, 0.215, 1.35, 3.5
    for k in range(16):
        y = top - k * h - (0.08 if k > 7 else 0)
        ax.text(left - 0.12, y + h / 2, f"{k}", fontsize=8.5, ha="right", va="center",
                color=theme.muted)
        for n in range(8):
            thread = 4 * n + k % 8 // 2
            mine = thread == 5
            theme.box(ax, (left + n * w, y), w - 0.04, h - 0.03, str(thread), size=8.5,
                      color=theme.vermilion if mine else theme.palette[(0, 2, 3, 5)[thread % 4]],
                      fill=mine, rounding=0.02)
    ax.text(left - 0.45, 1.9, "input k", fontsize=9.5, rotation=90, va="center", ha="center",
            color=theme.ink)
    for n in range(8):
        ax.text(left + n * w + w / 2 - 0.02, top + 0.27, str(n), fontsize=8.5, ha="center",
                color=theme.muted)
    ax.text(left + 4 * w, top + 0.43, "output n", fontsize=9.5, ha="center", va="center",
            color=theme.ink)
    ax.text(5.3, 2.75, "thread 5 holds", fontsize=9.5, color=theme.ink)
    ax.text(5.3, 2.5, "inputs 2, 3, 10, 11", fontsize=9.5, color=theme.ink)
    ax.text(5.3, 2.25, "of output 1", fontsize=9.5, color=theme.ink)
    ax.text(5.3, 1.55, "Packed offline, one", fontsize=9.5, color=theme.muted)
    ax.text(5.3, 1.3, "load of 16 bytes gives", fontsize=9.5, color=theme.muted)
    ax.text(5.3, 1.05, "a thread the weights of", fontsize=9.5, color=theme.muted)
    ax.text(5.3, 0.8, "eight such tiles.", fontsize=9.5, color=theme.muted)
    return fig
