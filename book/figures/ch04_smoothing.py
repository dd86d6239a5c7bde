"""How far W8A8 moves predictions against the share of the outliers that weights take."""

from infero import results

ALPHAS = (25, 50, 65, 80)


def draw(theme):
    key = "amd-epyc-2c/chapter04"

    def kl(name):
        return results.get(f"{key}/{name}_kl").value

    fig, ax = theme.figure(7.2, 3.2)
    ax.semilogy([a / 100 for a in ALPHAS], [kl(f"w8a8_smooth_{a}") for a in ALPHAS], "o-",
                color=theme.blue)
    ax.text(0.575, kl("w8a8_smooth_65") * 0.88, "W8A8, smoothed", fontsize=9.5, color=theme.blue,
            ha="center", va="top")
    lines = (("w8a8", "W8A8 as it is", theme.vermilion, "--"),
             ("w8a8_outliers", "outliers apart (LLM.int8())", theme.purple, "-."),
             ("w8_row", "int8 weights alone", theme.green, ":"))
    for name, words, color, style in lines:
        ax.axhline(kl(name), color=color, ls=style, lw=1.6)
        ax.text(0.995, kl(name) * 0.94, words, fontsize=9.5, color=theme.ink, ha="right",
                va="top")
    ax.set(xlabel="α, the share that the weights take", ylabel="KL divergence, nats a token",
           xlim=(0.2, 1.0), ylim=(kl("w8_row") * 0.75, kl("w8a8") * 1.3))
    ax.set_yticks([0.003, 0.01, 0.03], ["0.003", "0.01", "0.03"])
    ax.minorticks_off()
    return fig
