"""Host and device lanes: launch-bound, device-bound and replayed, by infero.lanes (chapter 16)."""

from infero import lanes

LAUNCH, GAP, GRAPH, COUNT = 4.0, 0.6, 6.0, 8  # microseconds
ROWS = (("kernels of 2 µs, launched one by one", 2.0, False),
        ("kernels of 6 µs, launched one by one", 6.0, False),
        ("kernels of 2 µs, as a graph", 2.0, True))


def draw(theme):
    fig, ax = theme.figure(7.2, 3.7)
    for row, (words, kernel, graph) in enumerate(ROWS):
        y = -3.1 * row
        kernels = [kernel] * COUNT
        if graph:
            ends, launches = lanes.replayed_ends(kernels, GRAPH, GAP), [(0.0, GRAPH)]
        else:
            ends = lanes.device_ends(kernels, LAUNCH)
            launches = [(i * LAUNCH, LAUNCH) for i in range(COUNT)]
        for start, length in launches:
            ax.barh(y, length, 0.8, start, color=theme.amber, edgecolor=theme.page, linewidth=1.2)
        for end in ends:
            ax.barh(y - 1, kernel, 0.8, end - kernel, color=theme.blue, edgecolor=theme.page,
                    linewidth=1.2)
        ax.text(0, y + 0.62, words, fontsize=9.5, va="bottom", fontweight="bold")
        ax.plot([ends[-1]] * 2, [y - 1.45, y + 0.45], color=theme.ink, linewidth=1.1)
        ax.text(ends[-1] + 0.5, y - 0.5, f"{ends[-1]:.0f} µs", va="center", fontsize=9)
    ax.set(xlim=(0, 58), ylim=(-7.8, 1.4), xlabel="µs")
    ax.set_yticks([y for row in range(3) for y in (-3.1 * row, -3.1 * row - 1)],
                  ["host", "device"] * 3)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return fig
