"""KL divergence over the share of zeros, for three methods, free and in patterns."""

from infero import results

STYLES = {"magnitude": ("vermilion", "s", "magnitude"), "wanda": ("blue", "o", "Wanda"),
          "sparsegpt": ("green", "^", "SparseGPT")}


def draw(theme):
    fig, ax = theme.figure(7.2, 3.7)
    rows = results.table("gpu/pruning/zeros").records()
    for method, (color, mark, name) in STYLES.items():
        color = getattr(theme, color)
        free = sorted((r["sparsity"], r["kl"]) for r in rows
                      if r["method"] == method and r["pattern"] == "free")
        ax.plot(*zip(*free, strict=True), marker=mark, ms=5, color=color, label=f"{name}, free")
        for pattern, shift in (("2:4", 0.012), ("4:8", -0.012)):
            for r in rows:
                if r["method"] == method and r["pattern"] == pattern:
                    ax.plot([r["sparsity"] + shift], [r["kl"]], mark, ms=9, mfc="none", mew=1.6,
                            color=color)
                    ax.annotate(pattern, (r["sparsity"] + shift, r["kl"]), xytext=(7, -3)
                                if shift > 0 else (-24, -3), textcoords="offset points",
                                fontsize=9, color=theme.ink)
    ax.set(xlabel="share of the layers' weights that is zero", yscale="log",
           ylabel="KL to the whole model, nats a token")
    ax.set_xticks([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    ax.legend(loc="upper left")
    return fig
