"""Latent attention in the expanded and the absorbed form: where the two matrices stand."""


def draw(theme):
    fig, ax = theme.canvas(7.2, 3.75)
    for x, title, sub in ((0.1, "expanded", "good for prefill: many queries"),
                          (3.75, "absorbed", "good for decode: one query")):
        ax.text(x, 3.6, title, fontsize=10.5, fontweight="bold", va="center")
        ax.text(x + 1.0, 3.6, sub, fontsize=9, color=theme.muted, va="center")

    def cache(x):
        theme.box(ax, (x, 0.12), 3.3, 0.46,
                  "cache: c tokens × (512 latent + 64 rotary)", color=theme.purple, size=9)

    # Expanded.
    cache(0.1)
    theme.box(ax, (0.1, 2.9), 1.15, 0.42, "q  [128, 128]", color=theme.blue, size=9)
    theme.box(ax, (0.35, 1.02), 1.2, 0.36, "× W$^{UK}$", color=theme.vermilion, size=9)
    theme.box(ax, (2.0, 1.02), 1.2, 0.36, "× W$^{UV}$", color=theme.vermilion, size=9)
    theme.box(ax, (0.2, 1.76), 1.5, 0.42, "k  [c, 128, 128]", color=theme.vermilion, size=9,
              fill=True)
    theme.box(ax, (1.85, 1.76), 1.5, 0.42, "v  [c, 128, 128]", color=theme.vermilion, size=9,
              fill=True)
    theme.box(ax, (1.5, 2.52), 0.95, 0.36, "softmax", size=9)
    theme.box(ax, (2.25, 3.08), 1.15, 0.36, "out [128, 128]", color=theme.blue, size=9)
    for a, b in (((0.95, 0.58), (0.95, 1.02)), ((2.6, 0.58), (2.6, 1.02)),
                 ((0.95, 1.38), (0.95, 1.76)), ((2.6, 1.38), (2.6, 1.76)),
                 ((0.95, 2.18), (1.6, 2.52)), ((0.85, 2.9), (1.52, 2.74)),
                 ((2.45, 2.72), (2.8, 3.08)), ((2.75, 2.18), (2.95, 3.08))):
        theme.arrow(ax, a, b)
    # Absorbed.
    cache(3.75)
    theme.box(ax, (3.75, 3.0), 1.15, 0.36, "q  [128, 128]", color=theme.blue, size=9)
    theme.box(ax, (3.75, 2.36), 1.15, 0.36, "× (W$^{UK}$)$^{T}$", color=theme.green, size=9)
    theme.box(ax, (3.75, 1.72), 1.15, 0.36, "q′  [128, 512]", color=theme.green, size=9, fill=True)
    theme.box(ax, (4.35, 1.04), 0.95, 0.36, "softmax", size=9)
    theme.box(ax, (5.75, 1.04), 1.3, 0.36, "mean [128, 512]", color=theme.green, size=9, fill=True)
    theme.box(ax, (5.75, 1.72), 1.3, 0.36, "× W$^{UV}$", color=theme.green, size=9)
    theme.box(ax, (5.75, 2.5), 1.3, 0.36, "out [128, 128]", color=theme.blue, size=9)
    for a, b in (((4.32, 3.0), (4.32, 2.72)), ((4.32, 2.36), (4.32, 2.08)),
                 ((4.4, 1.72), (4.7, 1.4)), ((4.8, 0.58), (4.8, 1.04)),
                 ((5.3, 1.22), (5.75, 1.22)), ((6.4, 0.58), (6.4, 1.04)),
                 ((6.4, 1.4), (6.4, 1.72)), ((6.4, 2.08), (6.4, 2.5))):
        theme.arrow(ax, a, b)
    return fig
