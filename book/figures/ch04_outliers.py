"""The largest activations in each layer: first token, largest channel, a usual channel."""

from infero import results


def draw(theme):
    rows = results.table("amd-epyc-2c/chapter04/outliers").records()
    fig, axes = theme.figure(7.2, 3.4, columns=2)
    for ax, name in zip(axes, ("qkv", "down"), strict=True):
        own = [row for row in rows if row["matrix"] == name]
        layers = [row["layer"] for row in own]
        lines = (("largest", "first token", theme.vermilion, "^-"),
                 ("later_largest", "largest channel", theme.blue, "o-"),
                 ("later_median", "median channel", theme.green, "s-"))
        for column, label, color, style in lines:
            ax.semilogy(layers, [row[column] for row in own], style, ms=3.5, lw=1.2, color=color,
                        label=label)
        ax.set(xlabel="layer", title=f"input of {name}")
    axes[0].set(ylabel="largest |x|")
    axes[1].legend(loc="upper left", bbox_to_anchor=(0.0, 0.99))
    return fig
