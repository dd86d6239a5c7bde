"""The path of a prompt through SmolLM2, with the shape of every tensor (chapter 1)."""


def draw(theme):
    fig, ax = theme.canvas(7.2, 5.0)

    def box(x, y, w, text, color=None, h=0.34):
        theme.box(ax, (x, y), w, h, text, color=color, size=9)
        return x + w / 2, y, y + h

    def shape(x, y, text):
        ax.text(x, y, text, fontsize=8.5, color=theme.muted, va="center", family="monospace")

    # The column of the whole model.
    left, wide = 0.15, 1.75
    column = [
        (4.45, "“The capital of France is”", None, None),
        (3.80, "tokenizer", theme.amber, "[T] indices"),
        (3.15, "embedding", theme.blue, "[T, 576]"),
        (2.25, "30 blocks", theme.green, "[T, 576]"),
        (1.55, "RMSNorm, last row", None, "[1, 576]"),
        (0.90, "head", theme.blue, "[1, 49152] logits"),
        (0.25, "sampler", theme.vermilion, "1 token: “ Paris”"),
    ]
    before = None
    for y, text, color, size in column:
        middle, low, high = box(left, y, wide, text, color, 0.34 if text != "30 blocks" else 0.5)
        if before is not None:
            theme.arrow(ax, (middle, before), (middle, high))
        before = low
        if size:
            shape(left + wide + 0.08, y + (0.02 if text == "30 blocks" else 0.16), size)
    ax.plot([0.15, 0.04, 0.04, 0.15], [0.42, 0.42, 3.32, 3.32], color=theme.vermilion, lw=1.2)
    theme.arrow(ax, (0.05, 3.32), (0.16, 3.32), color=theme.vermilion)
    # One block, opened.
    x0 = 3.75
    theme.box(ax, (x0, 0.12), 3.35, 4.76, "", color=theme.green, rounding=0.1)
    ax.plot([left + wide, x0], [2.5, 2.5], color=theme.green, lw=1.6, ls=":")
    ax.text(x0 + 3.25, 4.68, "one block", fontsize=9, ha="right", va="center", color=theme.green)
    stream = x0 + 0.35
    theme.arrow(ax, (stream, 4.78), (stream, 0.16), color=theme.ink)
    ax.text(stream - 0.14, 1.66, "residual stream  [T, 576]", rotation=90, fontsize=9, va="center",
            ha="center")
    steps = [
        (4.30, "RMSNorm", None, "[T, 576]"),
        (3.86, "query, key, value", theme.blue, "[T, 9+3+3, 64]"),
        (3.42, "RoPE on query, key", None, ""),
        (2.98, "attention", theme.vermilion, "[T, 9, 64]"),
        (2.54, "output", theme.blue, "[T, 576]"),
        (1.78, "RMSNorm", None, "[T, 576]"),
        (1.34, "gate and up", theme.blue, "2 × [T, 1536]"),
        (0.90, "SwiGLU", None, "[T, 1536]"),
        (0.46, "down", theme.blue, "[T, 576]"),
    ]
    bx = x0 + 0.75
    for i, (y, text, color, size) in enumerate(steps):
        theme.box(ax, (bx, y), 1.35, 0.32, text, color=color, size=8.8)
        if size:
            shape(bx + 1.41, y + (0.25 if text == "attention" else 0.16), size)
        if i not in (0, 5):
            theme.arrow(ax, (bx + 0.67, y + 0.46), (bx + 0.67, y + 0.31))
    for y in (4.46, 1.94):
        theme.arrow(ax, (stream, y), (bx, y))
    for y in (2.70, 0.62):
        theme.arrow(ax, (bx, y), (stream + 0.07, y))
        ax.text(stream, y, "+", fontsize=11, ha="center", va="center", color=theme.ink,
                bbox={"boxstyle": "circle,pad=0.1", "fc": theme.surface, "ec": theme.ink})
    ax.text(bx + 1.41, 3.05, "tokens mix here", fontsize=8.5, va="center",
            color=theme.vermilion)
    return fig
