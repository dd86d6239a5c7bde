"""Each layer's block influence, and what leaving that layer out really costs."""

from infero import results


def draw(theme):
    fig, (top, low) = theme.figure(7.2, 3.9, rows=2, sharex=True)
    table = results.table("gpu/pruning/influence")
    layers = table.column("layer")
    top.bar(layers, table.column("influence"), color=theme.blue, width=0.7)
    top.set(yscale="log", ylabel="influence")
    top.set_title("Predicted: 1 − cosine of a layer's input and output")
    low.bar(layers, table.column("kl"), color=theme.vermilion, width=0.7)
    low.set(yscale="log", ylabel="KL, nats", xlabel="layer")
    low.set_title("Measured: KL of the model without the layer")
    for ax in (top, low):
        ax.grid(axis="x", visible=False)
        ax.minorticks_off()
    low.set_xticks(range(0, len(layers), 3))
    return fig
