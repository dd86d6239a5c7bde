"""Change of perplexity against KL divergence, with what chance allows for so few tokens."""

import math

from infero import results

NAMES = {  # words, and where they stand beside the point: offset in points, alignments
    "a8_column": ("a scale a channel", 0, 7, "center", "bottom"),
    "w8_row": ("int8 weights", 0, -7, "center", "top"),
    "w8a8_smooth_65": ("W8A8, smoothed, α 0.65", 0, 7, "center", "bottom"),
    "w8a8_smooth_50": ("W8A8, smoothed, α 0.5", 6, -7, "right", "top"),
    "e4m3_row": ("E4M3 weights", 0, 7, "center", "bottom"),
    "w8a8_outliers": ("outliers apart", 0, -9, "center", "top"),
    "e4m3_both": ("E4M3, both sides", 7, -2, "left", "top"),
    "w8a8": ("W8A8", -6, 4, "right", "bottom"),
    "w8a8_static_smooth": ("static, smoothed", 7, -2, "left", "top"),
    "e5m2_row": ("E5M2 weights", -7, 3, "right", "bottom"),
    "w8_tensor": ("one scale a matrix", -7, 3, "right", "bottom"),
}
TOKENS = 640


def draw(theme):
    fig, ax = theme.figure(7.2, 3.9)
    rows = {row["name"]: row for row in
            results.table("amd-epyc-2c/chapter04/variants").records()}
    sizes = [10 ** (i / 20 - 2.9) for i in range(38)]
    spread = [100 * math.sqrt(2 * kl / TOKENS) for kl in sizes]
    middle = [100 * kl for kl in sizes]
    ax.fill_between(sizes, [m - 2 * s for m, s in zip(middle, spread, strict=True)],
                    [m + 2 * s for m, s in zip(middle, spread, strict=True)],
                    color=theme.sky, alpha=0.18, lw=0)
    ax.axhline(0, color=theme.muted, lw=0.8)
    for name, (words, dx, dy, ha, va) in NAMES.items():
        x, y = rows[name]["kl"], 100 * (rows[name]["ratio"] - 1)
        ax.plot([x], [y], "o", ms=5, color=theme.blue)
        ax.annotate(words, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=9,
                    color=theme.ink, ha=ha, va=va)
    ax.set(xscale="log", xlabel="KL divergence, nats a token", ylabel="perplexity, change in %",
           xlim=(sizes[0], 0.09), ylim=(-4, 11))
    ax.set_xticks([0.002, 0.005, 0.01, 0.02, 0.05], ["0.002", "0.005", "0.01", "0.02", "0.05"])
    ax.minorticks_off()
    return fig
