"""The worked example: eight requests in four slots, batched statically and continuously."""

from infero import batching

LENGTHS = (4, 9, 2, 7, 3, 8, 5, 2)
SLOTS = 4
LETTERS = "ABCDEFGH"


def draw(theme):
    fig, axes = theme.figure(7.2, 3.9, 2, 1, sharex=True)
    for ax, policy in zip(axes, ("static", "continuous"), strict=True):
        trace = batching.simulate(policy, LENGTHS, SLOTS)
        for s in trace.services:
            second = s.request >= SLOTS
            color = theme.vermilion if second else theme.blue
            ax.broken_barh([(s.start, s.end - s.start)], (s.slot - 0.38, 0.76), facecolor=color,
                           edgecolor=theme.page, linewidth=1.2)
            if s.released > s.end:
                ax.broken_barh([(s.end, s.released - s.end)], (s.slot - 0.38, 0.76),
                               facecolor="none", edgecolor=theme.muted, hatch="////", linewidth=0.6)
            ax.text((s.start + s.end) / 2, s.slot, f"{LETTERS[s.request]} {LENGTHS[s.request]}",
                    ha="center", va="center", fontsize=9, color=theme.page, fontweight="bold")
        ax.axvline(trace.makespan, color=theme.ink, linewidth=1.2)
        words = f"{trace.makespan} passes\n{trace.utilisation:.0%} used"
        ax.text(trace.makespan + 0.15, 1.5, words, va="center", fontsize=9, color=theme.ink)
        ax.set(title=f"{policy} batching", ylim=(SLOTS - 0.45, -0.55), xlim=(0, 20.4))
        ax.set_yticks(range(SLOTS), [f"slot {i}" for i in range(SLOTS)])
        ax.set_xticks(range(0, 20, 2))
        ax.grid(axis="y", visible=False)
    axes[1].set_xlabel("forward passes")
    return fig
