"""AWQ's search over the exponent on one matrix (chapter 5)."""

from infero import results


def draw(theme):
    fig, ax = theme.figure(7.2, 3.0)
    rows = results.table("gpu/four_bits/exponents").records()
    x = [r["exponent"] for r in rows]
    for key, color, style, words in (("error", theme.blue, "o-", "output, fresh text"),
                                     ("error_weights", theme.vermilion, "s--", "weights")):
        y = [r[key] / rows[0][key] for r in rows]
        ax.plot(x, y, style, color=color, ms=4)
        at = len(x) - 1 if key == "error" else 9
        ax.annotate(words, (x[at], y[at]), xytext=(6, 4) if key == "error" else (-6, 8),
                    textcoords="offset points", color=color, fontsize=9,
                    ha="left" if key == "error" else "right", annotation_clip=False)
    best = min(rows, key=lambda r: r["error"])
    theme.note(ax, f"least at {best['exponent']:.2f}",
               (best["exponent"], best["error"] / rows[0]["error"]), (-10, -24))
    top = 2.0
    ax.axhline(1, color=theme.muted, lw=0.8)
    ax.set(xlabel="exponent", ylabel="error, relative to no factors", ylim=(0.4, top),
           xlim=(-0.02, 1.02))
    return fig
