"""One measured request on a time axis: time to first token, inter-token latency, end to end."""

from itertools import pairwise

from infero import results

SOURCE = "amd-epyc-2c/chapter01"


def span(theme, ax, a, b, y, text, color):
    ax.annotate("", (b, y), (a, y), arrowprops={"arrowstyle": "<->", "color": color, "lw": 1.2,
                                                "shrinkA": 0, "shrinkB": 0})
    ax.text((a + b) / 2, y + 0.09, text, ha="center", va="bottom", fontsize=9, color=theme.ink)


def draw(theme):
    times = [1e3 * t for t in results.table(f"{SOURCE}/timeline").column("time")]
    prompt = int(results.get(f"{SOURCE}/smollm2_prompt").value)
    fig, ax = theme.figure(7.2, 2.2)
    ax.barh(0, times[0], height=0.5, left=0, color=theme.vermilion, alpha=0.8)
    ax.text(times[0] / 2, 0, f"prefill, {prompt} tokens", ha="center", va="center", fontsize=9,
            color=theme.page)
    for a, b in pairwise(times):
        ax.barh(0, b - a, height=0.5, left=a, color=theme.blue, alpha=0.75,
                edgecolor=theme.page, lw=1)
    ax.plot(times, [0.36] * len(times), "v", ms=5, color=theme.ink)
    span(theme, ax, 0, times[0], 0.62, "TTFT", theme.vermilion)
    middle = len(times) // 2
    span(theme, ax, times[middle], times[middle + 1], 0.62, "", theme.blue)
    ax.text((times[middle] + times[middle + 1]) / 2, 0.71, "one ITL", ha="center", va="bottom",
            fontsize=9)
    span(theme, ax, 0, times[-1], -0.62, "end to end", theme.muted)
    ax.set(xlabel="ms after arrival", ylim=(-0.75, 1.0), yticks=[], xlim=(-0.01 * times[-1],
                                                                       1.01 * times[-1]))
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False)
    return fig
