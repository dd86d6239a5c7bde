"""The largest product of an 8B layer over the number of tokens: dense, with zeros, and as 2:4."""

from infero import results


def draw(theme):
    fig, (left, right) = theme.figure(7.2, 3.5, columns=2)
    table = results.table("gpu/sparsity/gain")
    rows = [r for r in table.records() if r["matrix"] == "gate_up"]
    tokens = [r["tokens"] for r in rows]
    for key, name, color, style in (("dense", "dense", theme.ink, "o-"),
                                    ("zeros", "half zeros, stored dense", theme.vermilion, "s:"),
                                    ("two_of_four", "2:4, sparse tensor cores", theme.blue, "^-")):
        left.plot(tokens, [1e6 * r[key] for r in rows], style, color=color, ms=4, label=name)
    left.set(xscale="log", yscale="log", xlabel="tokens", ylabel="µs",
             title="28,672 × 4,096, bf16")
    left.legend(loc="upper left")
    for name, color, style in (("gate_up", theme.blue, "^-"), ("down", theme.green, "D--"),
                               ("qkv", theme.purple, "o-."), ("o", theme.amber, "s:")):
        mine = [r for r in table.records() if r["matrix"] == name]
        right.plot([r["tokens"] for r in mine], [r["gain"] for r in mine], style, color=color,
                   ms=4, label=name)
    right.axhline(1, color=theme.muted, lw=0.9)
    right.axhline(16 / 9, color=theme.muted, lw=0.9, ls="--")
    right.text(tokens[-1], 16 / 9 + 0.03, "bytes: 16/9", fontsize=9, color=theme.ink, ha="right")
    right.set(xscale="log", xlabel="tokens", title="times faster as 2:4", ylim=(0, 2.1))
    right.legend(loc="lower right", ncols=2)
    ticks = [t for t in (1, 16, 256, 4096) if t in tokens]
    for ax in (left, right):
        ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
        ax.minorticks_off()
    return fig
