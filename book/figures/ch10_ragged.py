"""One step of three requests: padded to a rectangle, and laid end to end by `pack`."""

from infero import runner

SPANS = (("A", 6, 1, [2, 7]), ("B", 0, 5, [0, 3]), ("C", 9, 1, [5, 1, 4]))  # name, start, n, blocks
BLOCK = 4


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.75)
    colors = {"A": theme.blue, "B": theme.vermilion, "C": theme.green}
    size = 0.44

    def cell(x, y, text, color=None, fill=True):
        theme.box(ax, (x, y), size - 0.05, size - 0.09, text, color=color, fill=fill, size=9,
                  rounding=0.04)

    ax.text(0.1, 3.52, "padded", fontsize=10.5, fontweight="bold", color=theme.ink)
    for row, (name, _, n, _) in enumerate(SPANS):
        y = 3.0 - row * size
        for i in range(5):
            if i < n:
                cell(0.1 + i * size, y, f"{name}{i + 1}" if n > 1 else name, colors[name])
            else:
                cell(0.1 + i * size, y, "pad", theme.muted, fill=False)
    ax.text(2.55, 2.72, "15 rows through every matrix,\n7 of them wanted", fontsize=9.5,
            va="center", color=theme.ink)
    ax.text(0.1, 1.78, "end to end", fontsize=10.5, fontweight="bold", color=theme.ink)
    spans = [runner.Span(list(range(n)), start, blocks, True) for _, start, n, blocks in SPANS]
    packed = runner.pack(spans, BLOCK)
    names = [name if n == 1 else f"{name}{i + 1}" for name, _, n, _ in SPANS for i in range(n)]
    owner = [name for name, _, n, _ in SPANS for _ in range(n)]
    for i, (text, name) in enumerate(zip(names, owner, strict=True)):
        cell(1.15 + i * size, 1.32, text, colors[name])
    for y, label, values in ((0.98, "positions", packed.positions), (0.68, "slots", packed.slots)):
        ax.text(0.1, y, label, fontsize=9.5, color=theme.ink, va="center")
        for i, value in enumerate(values):
            ax.text(1.15 + i * size + 0.19, y, str(value), fontsize=9.5, ha="center", va="center",
                    color=theme.ink)
    ax.text(0.1, 1.5, "ids", fontsize=9.5, color=theme.ink, va="center")
    ax.text(0.1, 0.3, "rows", fontsize=9.5, color=theme.ink, va="center")
    for row in packed.rows:
        x = 1.15 + row * size + 0.19
        theme.arrow(ax, (x, 0.55), (x, 0.3), color=theme.ink)
        ax.text(x, 0.2, str(row), fontsize=9.5, ha="center", va="center", color=theme.ink)
    ax.text(4.55, 1.5, "7 rows", fontsize=9.5, va="center", color=theme.ink)
    ax.text(4.55, 0.98, "each in its own request", fontsize=9.5, va="center", color=theme.muted)
    ax.text(4.55, 0.68, "where keys and values go", fontsize=9.5, va="center", color=theme.muted)
    ax.text(4.55, 0.22, "get logits: one a request", fontsize=9.5, va="center", color=theme.muted)
    return fig
