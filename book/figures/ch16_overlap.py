"""Plans of 2 and runs of 5, in turn and one step ahead, by infero.lanes (chapter 16)."""

from infero import lanes

PLAN, RUN, STEPS = 2.0, 5.0, 5


def draw(theme):
    fig, ax = theme.figure(7.2, 2.9)
    plans, runs = [PLAN] * STEPS, [RUN] * STEPS
    for row, (words, ends) in enumerate((("in turn", lanes.in_turn(plans, runs)),
                                         ("one step ahead", lanes.overlapped(plans, runs)))):
        y, planned = -3.2 * row, 0.0
        for n, end in enumerate(ends):
            if row == 0:
                start = ends[n - 1] if n else 0.0
            else:
                start = max(planned, ends[n - 2] if n > 1 else 0.0)
            planned = start + PLAN
            for x, length, level, color in ((start, PLAN, y, theme.amber),
                                            (end - RUN, RUN, y - 1, theme.blue)):
                ax.barh(level, length, 0.8, x, color=color, edgecolor=theme.page, linewidth=1.2)
                ax.text(x + length / 2, level, str(n), ha="center", va="center", fontsize=9,
                        color=theme.page, fontweight="bold")
        ax.text(0, y + 0.6, words, fontsize=9.5, va="bottom", fontweight="bold")
        ax.plot([ends[-1]] * 2, [y - 1.45, y + 0.45], color=theme.ink, linewidth=1.1)
        ax.text(ends[-1] + 0.3, y - 0.5, f"{ends[-1]:.0f}", va="center", fontsize=9)
    ax.set(xlim=(0, 37), ylim=(-4.8, 1.4), xlabel="time, units")
    ax.set_yticks([0, -1, -3.2, -4.2], ["host", "device"] * 2)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return fig
