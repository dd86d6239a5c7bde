"""Who shares what: MHA, GQA, MQA and MLA, and what each keeps of a token in one layer."""

HEADS = 8


def heads(theme, ax, x, y, n, color, width, label=""):
    gap = 0.035
    each = (width - gap * (n - 1)) / n
    centres = []
    for i in range(n):
        theme.box(ax, (x + i * (each + gap), y), each, 0.26, color=color, fill=True, rounding=0.02)
        centres.append(x + i * (each + gap) + each / 2)
    if label:
        ax.text(x + width / 2, y - 0.12, label, fontsize=8.8, ha="center", va="center")
    return centres


def draw(theme):
    fig, ax = theme.canvas(7.2, 2.75)
    width, pitch = 1.5, 1.79
    columns = (
        ("MHA", 8, "8 keys, 8 values", "16 vectors"), ("GQA", 2, "2 keys, 2 values", "4 vectors"),
        ("MQA", 1, "1 key, 1 value", "2 vectors"), ("MLA", 0, "", "1 latent, 1 rotary key"),
    )
    for c, (name, kv, label, kept) in enumerate(columns):
        x = 0.16 + c * pitch
        ax.text(x + width / 2, 2.58, name, fontsize=10.5, fontweight="bold", ha="center",
                va="center")
        queries = heads(theme, ax, x, 1.98, HEADS, theme.blue, width)
        if kv:
            w = {8: width, 2: 0.62, 1: 0.3}[kv]
            keys = heads(theme, ax, x + (width - w) / 2, 0.86, kv, theme.vermilion, w, label)
            for h, qx in enumerate(queries):
                kx = keys[h * kv // HEADS]
                ax.plot([qx, kx], [1.98, 1.12], color=theme.muted, linewidth=0.9)
        else:
            keys = heads(theme, ax, x, 1.36, HEADS, theme.surface, width)
            for h, qx in enumerate(queries):
                theme.box(ax, (keys[h] - 0.075, 1.36), 0.15, 0.26, color=theme.vermilion,
                          rounding=0.02, linestyle=(0, (2, 2)))
                ax.plot([qx, keys[h]], [1.98, 1.62], color=theme.muted, linewidth=0.9)
                ax.plot([keys[h], x + 0.55], [1.36, 1.12], color=theme.purple, linewidth=0.9)
            theme.box(ax, (x + 0.15, 0.86), 0.8, 0.26, color=theme.purple, fill=True,
                      rounding=0.02)
            theme.box(ax, (x + 1.1, 0.86), 0.2, 0.26, color=theme.amber, fill=True, rounding=0.02)
            ax.text(x + 0.55, 0.74, "latent", fontsize=8.8, ha="center", va="center")
            ax.text(x + 1.2, 0.74, "rotary", fontsize=8.8, ha="center", va="center")
        ax.text(x + width / 2, 0.36, f"kept: {kept}", fontsize=9, ha="center", va="center")
    ax.text(0.16, 2.34, "8 query heads", fontsize=8.8, color=theme.muted, va="center")
    ax.text(3 * pitch + 0.16 + width / 2, 0.1, "dashed: never stored", fontsize=8.8,
            color=theme.muted, ha="center", va="center")
    return fig
