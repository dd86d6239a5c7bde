"""Time of one step over its tokens, beside 32 decoding requests: flat, then a slope."""

from infero import results

KEY = "amd-epyc-2c/scheduling"


def draw(theme):
    rows = results.table(f"{KEY}/step_by_tokens").records()
    shown = [r for r in rows if r["tokens"] <= 2100]
    fig, ax = theme.figure(7.2, 3.0)
    ax.plot([r["tokens"] for r in shown], [1e3 * r["time"] for r in shown], "o-",
            color=theme.blue, markersize=4)
    floor = 1e3 * results.get(f"{KEY}/decode_step").value
    ax.axhline(floor, color=theme.muted, linestyle="--", linewidth=1.2)
    ax.text(2080, floor - 1.2, "decode alone", ha="right", va="top", fontsize=9, color=theme.ink)
    ax.axhline(25, color=theme.vermilion, linestyle=":", linewidth=1.4)
    ax.text(2080, 24.2, "a limit of 25 ms", ha="right", va="top", fontsize=9, color=theme.ink)
    theme.note(ax, "prefill that costs\nalmost nothing", (250, 9.8), (-24, 62))
    theme.note(ax, "arithmetic sets the pace:\neach token costs the same", (1300, 35.2), (-150, 44))
    ax.set(xlabel="tokens in the step (32 of them decode)", ylabel="step time (ms)",
           xlim=(0, 2100), ylim=(0, 62))
    ax.set_xticks([0, 256, 512, 1024, 1536, 2048])
    return fig
