"""The sixteen levels of four formats under the weights that they are to hold (chapter 5)."""

import numpy as np
import torch

from infero.quant import blocks

BLOCK = 64


def draw(theme):
    fig, axes = theme.figure(7.2, 3.9, rows=2, sharex=True, height_ratios=(1.5, 2))
    x = torch.randn(4000, BLOCK, generator=torch.Generator().manual_seed(0))
    scaled = (x / x.abs().amax(1, keepdim=True)).flatten().numpy()
    top, ax = axes
    top.hist(scaled, bins=np.linspace(-1, 1, 81), density=True, color=theme.sky, alpha=0.55)
    top.set(ylabel="density", yticks=[])
    top.text(0.99, 0.93, f"weights over the largest of {BLOCK}", fontsize=9, ha="right", va="top",
             transform=top.transAxes, color=theme.ink)
    halves = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6]) / 6
    formats = {
        "INT4, symmetric": np.arange(-8, 8) / 7,
        "Q4_0": np.arange(-8, 8) / 8,
        "NF4": np.array(blocks.nf4_levels()),
        "E2M1 (MXFP4, NVFP4)": np.concatenate((-halves, halves)),
    }
    for row, ((name, levels), color) in enumerate(zip(formats.items(), theme.palette,
                                                      strict=False)):
        y = len(formats) - row
        ax.plot([-1.15, 1.02], [y, y], color=theme.grid, lw=1)
        ax.plot(levels, [y] * len(levels), "|", color=color, ms=15, mew=2)
        ax.text(-1.22, y, name, fontsize=9, ha="right", va="center", color=theme.ink)
    ax.set(ylim=(0.4, 4.6), yticks=[], xlabel="level, in units of the block's largest weight",
           xlim=(-1.2, 1.05))
    ax.grid(axis="y", visible=False)
    return fig
