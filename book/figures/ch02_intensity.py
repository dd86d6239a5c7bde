"""Arithmetic intensity of decode over batch and context, and of prefill, for Llama-3-8B."""

from infero import hardware, roofline


def draw(theme):
    model, card = roofline.MODELS["llama-3-8b"], hardware.DEVICES["h100"]
    sizes = [2 ** (i / 2) for i in range(25)]

    def intensity(batch, new, context):
        moved = roofline.weight_bytes(model) + roofline.kv_bytes(model, batch, new, context)
        flops = roofline.step_flops(model, roofline.count_weights(model), batch, new, context)
        return flops / moved

    figure, ax = theme.figure(7.2, 3.6)
    ax.loglog(sizes, [intensity(1, n, n) for n in sizes], color=theme.vermilion)
    labels = [(sizes[-1], intensity(1, sizes[-1], sizes[-1]), "prefill", theme.vermilion)]
    for context, color, style in ((128, theme.blue, "-"), (1024, theme.green, "--"),
                                  (8192, theme.purple, ":")):
        values = [intensity(b, 1, context) for b in sizes]
        ax.loglog(sizes, values, color=color, linestyle=style)
        labels.append((sizes[-1], values[-1], f"decode, context\n{context:,}", color))
    ax.axhline(card.ridge(), color=theme.ink, linewidth=1, linestyle=(0, (5, 3)))
    ax.text(1.1, card.ridge() * 1.12, f"ridge of the {card.name} (datasheet):"
            f" {card.ridge():.0f} flop/byte", fontsize=9)
    ax.set(xlabel="tokens of the prompt (prefill) or requests at once (decode)",
           ylabel="flop per byte", xlim=(1, 4096), ylim=(0.7, 3000))
    ax.set_xticks([1, 4, 16, 64, 256, 1024, 4096], ["1", "4", "16", "64", "256", "1,024", "4,096"])
    ax.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    ax.minorticks_off()
    theme.label_lines(ax, labels)
    return figure
