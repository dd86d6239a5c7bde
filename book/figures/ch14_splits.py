"""Share of the read limit over the number of splits, alone and in a batch (chapter 14)."""

from infero import results


def draw(theme):
    limit = results.get("gpu/limits/read_bandwidth").value
    fig, axes = theme.figure(7.2, 3.0, columns=2, sharey=True)
    for ax, requests in zip(axes, (1, 32), strict=True):
        for table, color, style, label in (
            ("splits", theme.blue, "o-", "the lab's kernels"),
            ("splits_engine", theme.green, "^-", "the engine's"),
        ):
            rows = [r for r in results.table(f"gpu/attention_steps/{table}").records()
                    if r["requests"] == requests]
            ax.plot([r["splits"] for r in rows], [100 * r["bandwidth"] / limit for r in rows],
                    style, color=color, markersize=5, label=label)
        context = rows[0]["context"]
        many = "one request" if requests == 1 else f"{requests} requests"
        ax.set(xscale="log", ylim=(0, 100), xlabel="splits",
               title=f"{many}, {context:,.0f} tokens each" if requests > 1
               else f"{many}, {context:,.0f} tokens")
        ax.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        ax.minorticks_off()
    axes[0].set_ylabel("share of the read limit (%)")
    axes[1].legend(loc="lower center")
    return fig
