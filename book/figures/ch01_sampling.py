"""Two next-token distributions of SmolLM2 at three temperatures, with their 0.9 nuclei."""

from infero import results

SOURCE = "amd-epyc-2c/chapter01"
SHOWN = 10
FLOOR = 5e-6  # left end of the logarithmic axis


def draw(theme):
    fig, axes = theme.figure(7.2, 4.6, 2, 3, sharex="row")
    for row, which in zip(axes, ("certain", "open"), strict=True):
        table = results.table(f"{SOURCE}/{which}_tokens")
        tokens = [f"“{t}”".replace("\n", "↵") for t in table.column("token")[:SHOWN]]
        for ax, tag, t in zip(row, ("t05", "t10", "t15"), ("0.5", "1", "1.5"), strict=True):
            probs = table.column(f"p_{tag}")[:SHOWN]
            nucleus = int(results.get(f"{SOURCE}/{which}_{tag}_nucleus").value)
            y = range(SHOWN)
            ax.hlines(y, FLOOR, probs, color=theme.muted, lw=1.0)
            for inside in (True, False):
                at = [i for i in y if (i < nucleus) == inside]
                color = theme.blue if inside else theme.muted
                ax.plot([probs[i] for i in at], at, "o", ms=6, color=color,
                        mfc=color if inside else theme.page)
            first = ax is row[0]
            ax.set_yticks(y, tokens if first else [""] * SHOWN)
            ax.set_ylim(SHOWN - 0.4, -0.6)
            ax.set(xscale="log", xlim=(FLOOR, 1.8))
            ax.set_xticks([1e-4, 1e-2, 1], ["0.0001", "0.01", "1"])
            ax.minorticks_off()
            ax.grid(axis="y", visible=False)
            word = "token" if nucleus == 1 else "tokens"
            ax.set_title(f"T = {t}: {nucleus:,} {word}", fontsize=9.5)
            if which == "open":
                ax.set_xlabel("probability")
    return fig
