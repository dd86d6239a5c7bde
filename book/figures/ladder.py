"""The ladder: tokens a second after each optimisation, beside what the machine would allow."""

from infero import results

LEFT, RIGHT = 0.55, 18.0  # room beside the slowest and the fastest mark, as factors
PANELS = (("Qwen3-0.6B's shape", "gpu/ladder/qwen3_06b"),
          ("SmolLM2", "amd-epyc-2c/ladder/smollm2"))


def draw(theme):
    figure, axes = theme.figure(7.2, 4.4, 1, 2, sharey=True, width_ratios=(1.2, 1))
    rungs = results.table(PANELS[0][1]).records()
    keys = [rung["key"] for rung in rungs]
    for ax, (model, key) in zip(axes, PANELS, strict=True):
        device = results.provenance(key)["device"]
        panel(theme, ax, {row["key"]: row for row in results.table(key).records()}, keys)
        where = f"{device['cores']} CPU cores" if device["kind"] == "cpu" else (
            f"One {device['name'].removeprefix('NVIDIA ').split()[0]}")
        ax.set_title(f"{where}, {model}")
        ax.set_xlabel("tokens per second")
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        first = next(i for i, rung in enumerate(rungs) if rung["crowd"])
        ax.axhline(first - 0.5, color=theme.muted, linewidth=0.8, linestyle=(0, (4, 3)))
    names = [f"{rung['rung']}  ({rung['chapter']})" for rung in rungs]
    axes[0].set_yticks(range(len(rungs)), names)
    axes[0].set_ylim(-0.6, len(rungs) - 0.4)
    figure.legend(handles=marks(theme, axes[0]), loc="outside lower center", ncols=3,
                  handletextpad=0.2)
    return figure


def marks(theme, ax):
    """What each mark means, as handles of a legend."""
    empty = ([], [])
    return [
        ax.plot(*empty, "o", color=theme.blue, markersize=7, label="one request")[0],
        ax.plot(*empty, "s", color=theme.green, markersize=6.5, label="a crowd, all its tokens")[0],
        ax.plot(*empty, "|", color=theme.accent, markersize=11, markeredgewidth=2.2,
                label="what the machine would allow")[0],
    ]


def panel(theme, ax, rows, keys):
    """One machine: the measured rate, the roofline's for the same work, and the gap between."""
    measured = [row for row in rows.values() if row["rate"]]
    left = LEFT * min(row["rate"] for row in measured)
    right = RIGHT * max(max(row["rate"], row["limit"]) for row in measured)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.minorticks_off()
    before = None
    for place, key in enumerate(keys):
        row = rows.get(key)
        if row is None or not row["rate"]:
            ax.text(left * 1.15, place, "not on this machine", va="center", fontsize=8.5,
                    color=theme.muted)
            continue
        rate, limit = row["rate"], row["limit"]
        ax.plot([rate, limit], [place, place], color=theme.muted, linewidth=1.1, zorder=1)
        ax.plot(limit, place, "|", color=theme.accent, markersize=13, markeredgewidth=2.2)
        ax.plot(rate, place, "s" if row["crowd"] else "o", markersize=6.5 if row["crowd"] else 7,
                color=theme.green if row["crowd"] else theme.blue)
        slower = ", slower" if before and rate < 0.99 * before else ""
        ax.text(max(limit, rate) * 1.25, place, figures(rate) + slower, va="center", fontsize=9,
                color=theme.ink)
        before = rate
    ticks = [10.0**e for e in range(-1, 7) if left <= 10.0**e <= right]
    ax.set_xticks(ticks, [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks])


def figures(rate):
    """A rate in two or three figures."""
    return f"{rate:,.0f}" if rate >= 20 else f"{rate:.1f}"
