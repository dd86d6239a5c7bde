"""Three bits on the number line: the same weights with an asymmetric and a symmetric grid."""

import torch

from infero.quant import affine

WEIGHTS = (-0.62, -0.31, -0.05, 0.0, 0.12, 0.33, 0.58, 0.91, 1.24)
BITS = 3


def draw(theme):
    fig, axes = theme.figure(7.2, 3.3, rows=2, sharex=True)
    x = torch.tensor(WEIGHTS)
    for ax, symmetric in zip(axes, (False, True), strict=True):
        scale, zero = affine.scale_and_zero(x.min(), x.max(), BITS, symmetric)
        back = affine.dequantize(affine.quantize(x, scale, zero, BITS), scale, zero)
        grid = (torch.arange(2 ** BITS) - zero) * scale
        for value, at in enumerate(grid.tolist()):
            used = bool((back == at).any())
            ax.plot([at, at], [0.0, 0.34], color=theme.blue if used else theme.muted, lw=1.6,
                    ls="-" if used else ":")
            ax.text(at, -0.12, str(value), ha="center", va="top", fontsize=9,
                    color=theme.ink if used else theme.muted)
        for w, b in zip(WEIGHTS, back.tolist(), strict=True):
            ax.plot([w, b], [0.95, 0.36], color=theme.vermilion, lw=1.0)
        ax.plot(WEIGHTS, [0.95] * len(WEIGHTS), "o", ms=5, color=theme.vermilion)
        name = "symmetric" if symmetric else "asymmetric"
        ax.set_title(f"{name}: scale {scale:.3f}, zero point {zero:.0f}", fontsize=9.5)
        ax.set(ylim=(-0.45, 1.15), yticks=[])
        ax.grid(False)
        ax.spines["left"].set_visible(False)
    axes[1].set(xlabel="weight")
    return fig
