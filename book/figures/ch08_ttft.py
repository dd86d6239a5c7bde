"""Time to first token, cold and warm, over the length of the shared prefix (chapter 8)."""

from infero import results

PANELS = (
    ("gpu/paging", "llama3_8b", "Llama-3-8B's shape, one GPU"),
    ("amd-epyc-2c/paging", "smollm2", "SmolLM2, two CPU cores"),
)


def draw(theme):
    fig, axes = theme.figure(7.2, 3.1, columns=2)
    for ax, (source, name, title) in zip(axes, PANELS, strict=True):
        rows = results.table(f"{source}/{name}_ttft").records()
        tail = results.get(f"{source}/{name}_tail").value
        rate = results.get(f"{source}/{name}_rate").value
        prefix = [row["prefix"] for row in rows]
        cold = [1e3 * row["cold"] for row in rows]
        warm = [1e3 * row["warm"] for row in rows]
        ax.plot(prefix, cold, "o-", color=theme.vermilion, label="cold")
        ax.plot(prefix, warm, "s-", color=theme.blue, label="warm")
        saved = [c - 1e3 * p / rate for c, p in zip(cold, prefix, strict=True)]
        ax.plot(prefix, saved, ":", color=theme.muted, linewidth=1.4,
                label="cold − prefix / prefill rate")
        ax.set(xlabel="tokens of the shared prefix", title=title, ylim=(0, 1.08 * max(cold)))
        ax.text(0.98, 0.5, f"{tail:.0f} new tokens\nin every prompt", fontsize=9, ha="right",
                va="center", color=theme.muted, transform=ax.transAxes)
    axes[0].set_ylabel("time to first token (ms)")
    axes[0].legend(loc="upper left")
    return fig
