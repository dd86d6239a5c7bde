"""Cache of one token for published models, by kind of attention."""

from infero.cache import shapes


def draw(theme):
    rows = list(shapes.published().values())
    figure, ax = theme.figure(7.2, 3.3)
    colors = {"MHA": theme.vermilion, "GQA": theme.blue, "MQA": theme.green, "MLA": theme.purple}
    hatches = {"MHA": "///", "GQA": "", "MQA": "...", "MLA": "xx"}
    for y, row in enumerate(rows):
        kib = row.bytes_per_token() / 1024
        ax.barh(y, kib, color=colors[row.kind], alpha=0.8, hatch=hatches[row.kind], height=0.7,
                edgecolor=theme.page, linewidth=0)
        label = f"{kib:.3g} KiB, {row.kind}" + (" and windows" if row.windowed else "")
        ax.text(kib * 1.06, y, label, fontsize=9, va="center")
    names = [f"{row.name}, {row.parameters / 1e9:.3g} B" for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set(xscale="log", xlim=(4, 2600), xlabel="KiB a token, 16 bits a number")
    ax.set_xticks([4, 16, 64, 256, 1024], ["4", "16", "64", "256", "1,024"])
    ax.minorticks_off()
    ax.grid(axis="y", visible=False)
    return figure
