"""Useful bandwidth of a strided read, measured, and what counting sectors predicts."""

from infero import results

SOURCE = "gpu/gpu_experiments/stride"


def draw(theme):
    rows = results.table(SOURCE).records()
    limit = results.get("gpu/gpu_experiments/read_limit").value
    strides = [row["stride"] for row in rows]
    fig, ax = theme.figure(7.2, 3.2)
    ax.plot(strides, [limit / min(s, 8) / 1e9 for s in strides], "--", color=theme.muted,
            label="limit × useful share of 32-byte sectors")
    ax.plot(strides, [limit / min(s, 16) / 1e9 for s in strides], ":", color=theme.muted,
            label="the same with 64 bytes moved at a time")
    ax.plot(strides, [row["bandwidth"] / 1e9 for row in rows], "o-", color=theme.blue,
            label="measured")
    ax.set(xscale="log", yscale="log", xlabel="stride in 4-byte numbers",
           ylabel="useful GB/s", ylim=(90, 5000))
    ax.set_xticks(strides, [str(s) for s in strides])
    ax.set_yticks([100, 200, 500, 1000, 2000], ["100", "200", "500", "1,000", "2,000"])
    ax.minorticks_off()
    ax.legend(loc="upper right")
    return fig
