"""When an answer is back, over the load, by three ways of batching: Poisson arrivals, simulated."""

from infero import results


def draw(theme):
    fig, ax = theme.figure(7.2, 3.3)
    rows = results.table("amd-epyc-2c/batching/arrivals").records()
    lines = (("static", "static", theme.vermilion, "o-"),
             ("dynamic 8", "dynamic, window 8", theme.amber, "^-"),
             ("continuous", "continuous", theme.blue, "s-"))
    for policy, _, color, mark in lines:
        mine = [row for row in rows if row["policy"] == policy]
        ax.plot([100 * row["load"] for row in mine], [row["answer"] for row in mine], mark, ms=4.5,
                color=color)
    ax.axvline(30, color=theme.muted, linestyle=":", linewidth=1.2)
    ax.text(31, 14, "static batches are full at 30 %", fontsize=9, color=theme.ink)
    ax.set(yscale="log", ylim=(10, 30_000), xlim=(0, 118),
           xlabel="load, % of what the slots could do", ylabel="arrival to answer, passes")
    ax.set_xticks(range(0, 101, 20))
    last = {policy: [r for r in rows if r["policy"] == policy][-1]["answer"]
            for policy, *_ in lines}
    theme.label_lines(ax, [(95, last["static"] * 1.35, "static", theme.vermilion),
                           (95, last["dynamic 8"] * 0.72, "dynamic", theme.amber),
                           (95, last["continuous"], "continuous", theme.blue)])
    return fig
