"""Bank conflicts by stride, and the transpose with and without them."""

from infero import results

NAMES = {"CUDA C++: straight": "no shared memory", "CUDA C++: shared tile": "tile [32][32]",
         "CUDA C++: padded tile": "tile [32][33]", "Triton: tl.trans": "Triton",
         "PyTorch: x.t().contiguous()": "PyTorch"}


def draw(theme):
    fig, (left, right) = theme.figure(7.2, 3.2, columns=2)
    rows = results.table("gpu/gpu_experiments/banks").records()
    at = range(len(rows))
    left.bar(at, [row["slowdown"] for row in rows], color=theme.blue, width=0.65,
             label="measured slowdown")
    left.plot(at, [row["rounds"] for row in rows], "_", color=theme.vermilion, markersize=15,
              markeredgewidth=2.4, label="words in the busiest bank")
    left.set(yscale="log", xlabel="stride between lanes (4-byte words)", ylim=(0.8, 90),
             title="Reading shared memory")
    left.set_xticks(list(at), [str(row["stride"]) for row in rows], fontsize=8.5)
    left.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    left.minorticks_off()
    left.legend(loc="upper left")
    found = results.table("gpu/gpu_experiments/transpose").records()
    limit = results.get("gpu/gpu_experiments/copy_limit").value / 1e9
    names = [NAMES.get(row["way"], row["way"]) for row in found]
    rates = [row["bandwidth"] / 1e9 for row in found]
    right.barh(names, rates, color=[theme.blue] * 3 + [theme.green, theme.muted], height=0.6)
    for i, rate in enumerate(rates):
        wide = rate > 0.5 * limit
        right.text(rate - 60 if wide else rate + 40, i, f"{rate:,.0f}", va="center", fontsize=9,
                   ha="right" if wide else "left", color=theme.page if wide else theme.ink)
    right.axvline(limit, color=theme.ink, linestyle="--", linewidth=1)
    right.text(limit - 60, 4.42, "copy limit", ha="right", fontsize=9, va="center")
    right.set(xlim=(0, 1.12 * limit), xlabel="GB/s in and out", title="Transpose, 16,384²",
              ylim=(4.7, -0.6))
    right.grid(axis="y", visible=False)
    return fig
