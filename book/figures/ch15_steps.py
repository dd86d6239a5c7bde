"""Measured: the product over the number of tokens, version by version."""

from infero import results

STEPS = (("bf16", "cuBLAS, bf16", "-", None), ("v2", "v2", "^--", 1), ("v3", "v3", "v--", 4),
         ("v4", "v4", "s--", 2))
ENGINE = (("int8", "engine, int8", "D-", 5), ("int4", "engine, int4", "o-", 0))


def draw(theme):
    fig, ax = theme.figure(7.2, 3.8)
    table = results.table("gpu/matmul_steps/sweep")
    lines = [(table.column("tokens"), table.column(name), *look) for name, *look in STEPS]
    rows = results.table("gpu/matmul_kernels/products")
    names = [rows.column(name) for name in ("format", "shape", "tokens", "time")]
    for kind, *look in ENGINE:
        found = [(n, s) for f, shape, n, s in zip(*names, strict=True)
                 if f == kind and shape == "gate_up"]
        lines.append(([n for n, _ in found], [s for _, s in found], *look))
    for tokens, times, label, style, color in lines:
        ax.plot(tokens, [1e6 * s for s in times], style, ms=4, label=label,
                color=theme.ink if color is None else theme.palette[color],
                lw=2 if color is None else 1.4)
    ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel="µs")
    ax.set_xticks([1, 2, 4, 8, 16, 32, 64, 128], [1, 2, 4, 8, 16, 32, 64, 128])
    ax.set_yticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
    ax.minorticks_off()
    ax.legend(loc="upper left", fontsize=9, ncol=2)
    return fig
