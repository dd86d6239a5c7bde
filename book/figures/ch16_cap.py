"""What launches alone allow, and what reading the weights allows (chapter 16)."""

from infero import roofline

READ = 3.1e12  # byte/s, as chapter 2 measured
COSTS = ((7e-6, "-", "launched, 7 µs"), (1.3e-6, "--", "in a graph, 1.3 µs"))
SHAPES = (("qwen3-0.6b", "0.6B", 0), ("llama-3-8b", "8B", 1))


def draw(theme):
    fig, axes = theme.figure(7.2, 3.1, 1, 2, sharey=True)
    counts = [4 * 1.05**i for i in range(67)]
    for ax, (name, words, color) in zip(axes, SHAPES, strict=True):
        shape = roofline.shape(name)
        limit = READ / (2 * sum(roofline.count_weights(shape)))
        for cost, style, label in COSTS:
            rate = [1 / (shape.num_layers * m * cost) for m in counts]
            ax.plot(counts, rate, style, color=theme.palette[color], label=label)
        ax.axhline(limit, color=theme.ink, linewidth=1.1)
        ax.text(100, limit * 0.92, f"weights: {limit:,.0f}", ha="right", va="top", fontsize=9)
        ax.axvline(6, color=theme.muted, linewidth=0.8, linestyle=":")
        ax.set(xscale="log", yscale="log", title=f"{words}, {shape.num_layers} layers",
               xlabel="launches a layer", ylim=(30, 9000), xlim=(4, 104))
        ax.set_xticks([6, 10, 20, 50, 100], ["6", "10", "20", "50", "100"])
        ax.set_yticks([50, 100, 200, 500, 1000, 2000, 5000],
                      ["50", "100", "200", "500", "1,000", "2,000", "5,000"])
        ax.minorticks_off()
        ax.legend(loc="lower left")
    axes[0].set_ylabel("tokens/s at most")
    return fig
