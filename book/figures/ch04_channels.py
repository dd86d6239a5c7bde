"""Every input channel of one matrix, and what eight bits do to its inputs by who shares a scale."""

from infero import results

WORDS = {"tensor": "one scale", "token": "one a token", "column": "one a channel"}


def draw(theme):
    key = "amd-epyc-2c/chapter04"
    channels = results.table(f"{key}/channels")
    fig, axes = theme.figure(7.2, 3.0, columns=2, width_ratios=(1.7, 1))
    ax = axes[0]
    size = channels.column("later_largest")
    ax.vlines(channels.column("channel"), 0, size, color=theme.blue, lw=0.7)
    top = int(results.get(f"{key}/channel").value)
    ax.text(top + 12, size[top] * 0.96, f"channel {top}", fontsize=9.5, color=theme.ink, va="top")
    ax.set(xlabel="input channel of qkv, layer 20", ylabel="largest |x|", xlim=(0, len(size)))
    ax.set_ylim(bottom=0)
    found = [100 * results.get(f"{key}/error_qkv_{name}").value for name in WORDS]
    bars = axes[1].barh(list(WORDS.values()), found, color=[theme.vermilion, theme.amber,
                                                            theme.green])
    axes[1].bar_label(bars, [f"{e:.1f} %" for e in found], padding=3, fontsize=9.5,
                      color=theme.ink)
    axes[1].set(xlabel="error of eight bits", xlim=(0, max(found) * 1.35), xticks=[])
    axes[1].invert_yaxis()
    axes[1].grid(False)
    return fig
