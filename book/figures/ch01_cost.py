"""Cost of a million output tokens against throughput, with this chapter's engine as points."""

from infero import results

PRICES = (1.0, 2.5, 5.0)  # per GPU hour; a variable of the figure, not a measurement


def cost(price, rate):
    """Cost of a million tokens at `rate` tokens a second."""
    return 1e6 * price / (3600 * rate)


def draw(theme):
    table = results.table("gpu/chapter01/llama3_8b_batch")
    rates, batches = table.column("rate"), table.column("batch")
    fig, ax = theme.figure(7.2, 3.2)
    ends = (min(rates) / 3, max(rates) * 10)
    styles = ((theme.green, "--"), (theme.blue, "-"), (theme.purple, ":"))
    for price, (color, style) in zip(PRICES, styles, strict=True):
        ax.loglog(ends, [cost(price, r) for r in ends], style, color=color)
        ax.text(ends[1] * 1.08, cost(price, ends[1]), f"{price:g} € an hour", color=color,
                fontsize=9, va="center")
    ax.loglog(rates, [cost(PRICES[1], r) for r in rates], "o", color=theme.accent)
    for i in (0, len(rates) - 1):
        n = batches[i]
        theme.note(ax, f"{n} request{'s' if n > 1 else ''}", (rates[i], cost(PRICES[1], rates[i])),
                   (14, 16))
    ax.set(xlabel="output tokens a second", ylabel="€ for a million tokens",
           xlim=(ends[0], ends[1] * 4))
    return fig
