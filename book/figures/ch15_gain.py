"""Three limits of a product with quantized weights over the number of tokens."""

import math

from infero.kernels.steps import matmul

WEIGHTS = 28_672 * 4_096
TOKENS = [2 ** (i / 16) for i in range(161)]


def draw(theme):
    fig, ax = theme.figure(7.2, 3.9)
    card = matmul.H100
    dots = [2 * n * WEIGHTS / card.flops_per_s * 1e6 for n in TOKENS]
    for bits, name, color, style in ((16, "bf16", theme.ink, "-"), (8, "int8", theme.blue, "-"),
                                     (4.125, "int4, group 128", theme.vermilion, "-")):
        floor = WEIGHTS * bits / 8 / card.bandwidth_bytes_per_s * 1e6
        ax.plot(TOKENS, [max(floor, d) for d in dots], style, color=color)
        ax.text(1.05, floor * 1.06, f"{name}: {floor:.0f} µs", fontsize=9.5, color=theme.ink)
        meet = bits / 16 * card.flops_per_s / card.bandwidth_bytes_per_s
        ax.plot([meet], [floor], "o", ms=5, color=color)
        ax.text(meet * 1.1, floor * 0.86, f"{meet:.0f}", fontsize=9.5, color=theme.ink)
    stairs = list(range(1, 257))
    step_us = 1e6 * WEIGHTS * matmul.INSTRUCTIONS / card.instructions_per_s
    ax.plot(stairs, [math.ceil(n / 64) * step_us for n in stairs], "--", color=theme.green,
            drawstyle="steps-post")
    ax.text(1.05, 50.5, "unpacking, 13.5 instructions, tiles of 64", fontsize=9.5, color=theme.ink)
    ax.text(980, 150, "arithmetic", fontsize=9.5, color=theme.ink, ha="right")
    ax.set(xscale="log", yscale="log", xlabel="tokens M", ylabel="µs", xlim=(1, 1024),
           ylim=(12, 300))
    ax.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1024"])
    ax.set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    ax.minorticks_off()
    return fig
