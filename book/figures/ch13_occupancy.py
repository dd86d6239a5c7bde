"""Bandwidth against resident warps, for loads of 4 and of 16 bytes, beside Little's law."""

from infero import results

SMS, LATENCY = "gpu/limits/sm_count", "gpu/hierarchy/hbm_latency"


def draw(theme):
    rows = results.table("gpu/gpu_experiments/occupancy").records()
    limit = results.get("gpu/gpu_experiments/read_limit").value
    sms, latency = results.get(SMS).value, results.get(LATENCY).value
    warps = [row["warps"] for row in rows]
    fig, ax = theme.figure(7.2, 3.3)
    for size, color, mark in ((16, theme.vermilion, "s"), (4, theme.blue, "o")):
        law = [min(limit, w * 32 * size * sms / latency) / 1e9 for w in warps]
        ax.plot(warps, law, "--", color=color, linewidth=1.1)
        ax.plot(warps, [row[f"bandwidth_{size}"] / 1e9 for row in rows], mark + "-", color=color,
                label=f"{size} bytes a load and thread, measured")
    ax.plot([], [], "--", color=theme.muted, linewidth=1.1,
            label="bytes in flight / latency, up to the limit")
    ax.set(xlabel="resident warps on each SM", ylabel="GB/s read", ylim=(0, 3500), xlim=(0, 66))
    ax.set_xticks([1, 4, 8, 16, 24, 32, 48, 64])
    ax.legend(loc="lower right")
    return fig
