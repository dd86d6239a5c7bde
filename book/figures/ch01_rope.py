"""RoPE: three pairs as clock hands, and the score of a vector with itself at a distance."""

import math

import torch

from infero import model

SMOLLM2 = model.ModelConfig("llama", 49_152, 576, 1536, 30, 9, 3, 64, 8192, rope_theta=100_000.0)


def draw(theme):
    omega = model.rope_frequencies(SMOLLM2)
    fig, axes = theme.figure(7.2, 2.5, 1, 4, width_ratios=[1, 1, 1, 2.3])
    for ax, pair in zip(axes[:3], (0, 6, 12), strict=True):
        ax.set_aspect("equal")
        ax.axis("off")
        ax.set(xlim=(-1.35, 1.45), ylim=(-1.35, 1.35))
        turn = torch.linspace(0, 2 * math.pi, 200)
        ax.plot(turn.cos(), turn.sin(), color=theme.grid, lw=1.2)
        for p in range(8):
            angle = p * float(omega[pair])
            x, y = math.cos(angle), math.sin(angle)
            shade = 0.35 + 0.65 * p / 7
            ax.plot([0, x], [0, y], color=theme.blue, alpha=shade, lw=1.4)
            narrow = 7 * float(omega[pair]) < 0.3
            if pair == 0 or (p in (0, 7) and not narrow):
                ax.text(1.19 * x, 1.19 * y, str(p), fontsize=8.5, ha="center", va="center")
            elif p == 7:
                ax.text(1.1, 0.02, "0–7", fontsize=8.5, ha="left", va="center")
        period = 2 * math.pi / float(omega[pair])
        words = f"{period:.1f}" if period < 100 else f"{period:,.0f}"
        ax.set_title(f"pair {pair}\nturn: {words} tokens", fontsize=9, loc="center",
                     fontweight="normal")
    ax = axes[3]
    distance = torch.arange(0, 1001)
    score = (distance[:, None] * omega).cos().mean(-1)
    ax.plot(distance, score, color=theme.accent, lw=1.0)
    ax.set(xlabel="distance in tokens", ylabel="score, relative", xlim=(0, 1000), ylim=(0, 1.02))
    return fig
