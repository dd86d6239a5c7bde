"""Share of a batch that works: static batching as derived and as simulated, and continuous."""

from infero import results


def draw(theme):
    fig, ax = theme.figure(7.2, 3.1)
    table = results.table("amd-epyc-2c/batching/by_slots")
    slots = table.column("slots")
    percent = {name: [100 * v for v in table.column(name)]
               for name in ("predicted", "static", "continuous")}
    ax.plot(slots, percent["continuous"], "s-", ms=5, color=theme.blue)
    ax.plot(slots, percent["predicted"], "--", color=theme.muted)
    ax.plot(slots, percent["static"], "o", ms=5.5, color=theme.vermilion)
    ax.set_xscale("log", base=2)
    ax.set_xticks(slots, [str(s) for s in slots])
    ax.minorticks_off()
    ax.set(xlabel="slots", ylabel="% of slot-passes that yield a token", ylim=(0, 108),
           xlim=(0.9, 118))
    theme.label_lines(ax, [(64, percent["continuous"][-1], "continuous", theme.blue),
                           (64, percent["static"][-1], "static", theme.vermilion)])
    ax.annotate("mean / E[longest]", (4, percent["predicted"][2]), xytext=(18, 14),
                textcoords="offset points", fontsize=9, color=theme.ink,
                arrowprops={"arrowstyle": "-", "color": theme.muted, "linewidth": 0.8})
    return fig
