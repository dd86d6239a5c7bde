"""Shares of the KV cache under four ways of giving it out (chapter 8)."""

from matplotlib.colors import to_rgba

from infero import results

SOURCE = "amd-epyc-2c/fragmentation/waste"
NAMES = {
    "longest": "the longest\npossible",
    "asked": "what the\nclient asks for",
    "oracle": "exactly what\nit will need",
    "paged": "blocks of\n16 tokens",
}


def draw(theme):
    rows = results.table(SOURCE).records()
    parts = (
        ("stored", "tokens", theme.blue, ""),
        ("reserved", "kept for later tokens", theme.sky, "..."),
        ("internal", "given out, never used", theme.vermilion, "///"),
        ("free", "free", theme.surface, ""),
    )
    fig, ax = theme.figure(7.2, 3.1)
    y = list(range(len(rows)))[::-1]
    left = [0.0] * len(rows)
    for name, label, color, hatch in parts:
        width = [100 * row[name] for row in rows]
        bars = ax.barh(y, width, left=left, height=0.62, color=color, hatch=hatch, label=label,
                       edgecolor=theme.muted if name == "free" else theme.page, linewidth=0.6)
        for bar in bars:
            bar._hatch_color = to_rgba(theme.page, 0.75)  # hatches in the colour of the page
        left = [a + b for a, b in zip(left, width, strict=True)]
    for at, row in zip(y, rows, strict=True):
        share = 100 * row["stored"]
        inside = share > 20
        ax.text(share / 2 if inside else 1.2, at, f"{share:.0f} %", va="center", fontsize=9.5,
                ha="center" if inside else "left", color=theme.page, fontweight="bold")
        ax.text(101.5, at, f"{row['requests']:.0f} requests", va="center", fontsize=9.5)
    ax.set(xlim=(0, 100), xlabel="share of the cache, averaged over time (%)")
    ax.set_yticks(y, [NAMES[row["policy"]] for row in rows])
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    fig.legend(loc="outside upper center", ncols=4, handlelength=1.4, columnspacing=1.4)
    return fig
