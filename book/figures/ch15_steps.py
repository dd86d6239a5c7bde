"""Measured: the product over the number of tokens, version by version."""

from infero import results

LINES = (("bf16", "cuBLAS, bf16", "-", None), ("v2", "v2", "^--", 1), ("v3", "v3", "v--", 4),
         ("v4", "v4", "s--", 2), ("v5", "v5", "D--", 3), ("engine_int8", "engine, int8", "o-", 5),
         ("engine_int4", "engine, int4", "o-", 0))


def draw(theme):
    fig, ax = theme.figure(7.2, 3.8)
    table = results.table("gpu/matmul_steps/sweep")
    tokens = table.column("tokens")
    for column, label, style, color in LINES:
        ax.plot(tokens, [1e6 * t for t in table.column(column)], style, ms=4, label=label,
                color=theme.ink if color is None else theme.palette[color],
                lw=2 if color is None else 1.4)
    ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel="µs")
    ax.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    ax.minorticks_off()
    ax.legend(loc="upper left", fontsize=9, ncol=2)
    return fig
