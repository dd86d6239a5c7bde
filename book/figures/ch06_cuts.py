"""What each way of removing weights costs, over the weights that a decode step still reads."""

from infero import results

HIDDEN, VOCAB = 576, 49_152


def draw(theme):
    fig, ax = theme.figure(7.2, 3.9)
    base = results.get("gpu/pruning/base_bytes").value
    layers = base - 4 * HIDDEN * VOCAB  # bytes in float32 that are not the embedding

    def left(size):
        return 1 - (base - size) / layers

    dropped = results.table("gpu/pruning/dropped").records()
    ax.plot([left(r["bytes"]) for r in dropped], [r["kl"] for r in dropped], "o-", ms=5,
            color=theme.blue, label="whole layers")
    for r in dropped:
        if r["layers"] in (1, 4, 10):
            ax.annotate(f"{r['layers']}", (left(r["bytes"]), r["kl"]), xytext=(5, 5),
                        textcoords="offset points", fontsize=9, color=theme.ink)
    width = results.table("gpu/pruning/width").records()
    for what, color, mark in (("neurons", theme.green, "s"), ("heads", theme.purple, "D")):
        for columns, fill, style in (("as they were", "none", ":"), ("refitted", None, "-")):
            mine = sorted((left(r["bytes"]), r["kl"]) for r in width
                          if (r["what"], r["columns"]) == (what, columns))
            ax.plot(*zip(*mine, strict=True), mark + style, ms=6, color=color,
                    mfc=fill or color, label=f"{what}, {columns}")
    zeros = {r["method"]: r for r in results.table("gpu/pruning/zeros").records()
             if r["pattern"] == "2:4"}
    for method, name in (("wanda", "2:4, Wanda"), ("sparsegpt", "2:4, SparseGPT")):
        mark = "^" if method == "sparsegpt" else "v"
        ax.plot([9 / 16], [zeros[method]["kl"]], mark, ms=8, color=theme.vermilion, label=name)
    ax.invert_xaxis()
    ax.set(xlabel="bytes of the layers' weights that are left (share)", yscale="log",
           ylabel="KL to the whole model, nats a token")
    ax.legend(ncols=2, fontsize=8.5, loc="lower right")
    return fig
