"""Every device of the table by bandwidth and peak, with lines of equal ridge."""

from infero import hardware


def draw(theme):
    figure, ax = theme.figure(7.2, 4.1)
    low, high = 0.22, 11.0
    for ridge in (100, 200, 400):
        ax.plot([low, high], [ridge * low, ridge * high], color=theme.muted, linewidth=0.9,
                linestyle=(0, (4, 4)))
        theme.label_lines(ax, [(high, ridge * high, f"{ridge} flop/byte", theme.muted)])
    offsets = {"l4": (8, -3), "t4": (8, -6), "a10": (-5, 10), "tpu-v5e": (-8, 9),
               "rtx4090": (8, -4),
               "a100-40": (-34, 10), "a100-80": (9, -10), "h100": (-10, 12), "h200": (9, -9),
               "mi300x": (-30, 14), "b200": (-34, 12), "tpu-v5p": (9, -6), "tpu-v6e": (-60, 10)}
    makers = {"NVIDIA": (theme.green, "o"), "AMD": (theme.vermilion, "s"),
              "Google": (theme.blue, "^")}
    for row in hardware.DEVICES.values():
        peak = row.peak_flops_per_s.get("bf16", row.peak_flops_per_s.get("fp16", 0))
        color, marker = makers[row.vendor]
        x, y = row.bandwidth_bytes_per_s / 1e12, peak / 1e12
        ax.scatter(x, y, s=row.memory_bytes / 1e9 * 1.6 + 12, color=color, marker=marker,
                   alpha=0.85, linewidth=0, zorder=3)
        name = row.name.replace("NVIDIA ", "").replace("Google ", "").replace("AMD Instinct ", "")
        ax.annotate(f"{name.replace('GeForce ', '')}", (x, y), offsets[row.slug],
                    textcoords="offset points", fontsize=8.5)
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(40, 5500),
           xlabel="memory bandwidth, TB/s", ylabel="dense 16-bit peak, TFLOP/s")
    ax.set_xticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
    ax.set_yticks([50, 100, 300, 1000, 3000], ["50", "100", "300", "1,000", "3,000"])
    ax.minorticks_off()
    return figure
