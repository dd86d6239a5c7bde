"""The same three prompts as a radix tree and as a table of block digests (chapter 8)."""


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.2)
    ax.text(0.1, 3.02, "Radix tree: an edge holds a run of tokens", fontsize=10.5,
            fontweight="bold", va="center")
    ax.text(3.85, 3.02, "Hash table: a name for each full block", fontsize=10.5,
            fontweight="bold", va="center")

    def node(x, y, text="", color=None):
        theme.box(ax, (x, y), 0.2, 0.2, text, color=color or theme.ink, rounding=0.1, size=9)

    def edge(a, b, words, color, side=1):
        theme.arrow(ax, a, b, color=color)
        x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
        ax.text(x + 0.09 * side, y, words, fontsize=9, va="center",
                ha="left" if side > 0 else "right", color=theme.ink)

    node(1.7, 2.62)
    edge((1.8, 2.62), (1.8, 2.02), "10 tokens: s … s", theme.green)
    node(1.7, 1.82)
    edge((1.74, 1.82), (0.9, 1.22), "4: a a a a", theme.blue, -1)
    edge((1.86, 1.82), (2.5, 1.22), "4: b b b b", theme.vermilion)
    node(0.75, 1.02)
    node(2.45, 1.02)
    edge((0.81, 1.02), (0.6, 0.45), "3: x x x", theme.blue, -1)
    edge((0.9, 1.02), (1.25, 0.45), "2: y y", theme.purple)
    node(0.5, 0.25, "P", theme.blue)
    node(1.2, 0.25, "Q", theme.purple)
    ax.text(2.74, 1.1, "R", fontsize=9.5, va="center", fontweight="bold")
    ax.plot([3.62, 3.62], [0.1, 3.0], color=theme.grid, linewidth=1)
    # Digest table, block size 4.
    rows = (
        ("P", theme.blue, ("ssss", "ssss", "ssaa", "aaxx"), "x"),
        ("Q", theme.purple, ("ssss", "ssss", "ssaa", "aayy"), ""),
        ("R", theme.vermilion, ("ssss", "ssss", "ssbb"), "bb"),
    )
    names = {("ssss", 0): "d1", ("ssss", 1): "d2", ("ssaa", 2): "d3", ("aaxx", 3): "d4",
             ("aayy", 3): "d5", ("ssbb", 2): "d6"}
    shared = {"d1": theme.green, "d2": theme.green, "d3": theme.sky}
    for k, (who, color, blocks, rest) in enumerate(rows):
        y = 2.25 - k * 0.75
        ax.text(3.85, y + 0.17, who, fontsize=9.5, va="center", fontweight="bold", color=color)
        for i, block in enumerate(blocks):
            name = names[block, i]
            theme.box(ax, (4.12 + i * 0.66, y), 0.58, 0.34, block, size=9, rounding=0.03,
                      color=shared.get(name, color))
            ax.text(4.41 + i * 0.66, y - 0.11, name, fontsize=9, ha="center", va="center",
                    color=theme.muted)
        if rest:
            theme.box(ax, (4.12 + len(blocks) * 0.66, y), 0.36, 0.34, rest, size=9, rounding=0.03,
                      color=theme.muted, linestyle="--")
    ax.text(3.85, 0.25, "one name, one block; a dashed end has none", fontsize=9,
            va="center", color=theme.muted)
    return fig
