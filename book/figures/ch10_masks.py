"""How many tokens a JSON schema leaves at each place of one document."""

from infero import results


def draw(theme):
    fig, ax = theme.figure(7.2, 3.2)
    rows = results.table("amd-epyc-2c/batching/mask").records()
    at = range(len(rows))
    for i, row in zip(at, rows, strict=True):
        ax.bar(i, row["allowed"], width=0.78, bottom=0,
               color=theme.vermilion if row["forced"] else theme.blue,
               hatch="////" if row["forced"] else None, edgecolor=theme.page, linewidth=0.4)
        if row["forced"]:
            ax.bar(i, 0.62, width=0.78, bottom=0.62, color=theme.vermilion, hatch="////",
                   edgecolor=theme.page, linewidth=0.4)
    ax.set(yscale="log", ylim=(0.6, 120_000), xlim=(-0.6, len(rows) - 0.4), ylabel="tokens allowed")
    ax.set_yticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    ax.minorticks_off()
    ax.grid(axis="x", visible=False)
    ax.set_xticks(list(at), [row["token"].replace(" ", "␣") for row in rows], rotation=90,
                  fontsize=8.5, family="monospace")
    vocabulary = results.get("amd-epyc-2c/batching/vocabulary").value
    ax.axhline(vocabulary, color=theme.muted, linestyle=":", linewidth=1)
    ax.text(len(rows) - 0.5, vocabulary * 1.15, "whole vocabulary", fontsize=9, ha="right",
            color=theme.ink)
    return fig
