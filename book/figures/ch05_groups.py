"""What a group size costs in bits and buys in error (chapter 5): the formula, and SmolLM2's own."""

import torch

from infero import results
from infero.quant import affine, codes

GROUPS = (16, 32, 64, 128, 256, 512, 1024, 4096)


def draw(theme):
    fig, ax = theme.figure(7.2, 3.5)
    x = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
    marks = ("o", "^", "s", "D")
    for bits, color, mark in zip((2, 3, 4, 5), theme.palette, marks, strict=False):
        points = []
        for group in GROUPS:
            back = affine.rtn(x, bits, group).dequantize()
            points.append((codes.bits_a_weight(bits, group, True),
                           float((back - x).norm() / x.norm())))
        ax.plot(*zip(*points, strict=True), color=color, marker=mark, ms=4)
        ax.annotate(f"{bits} bits", points[-1], xytext=(-6, -4), textcoords="offset points",
                    fontsize=9, color=color, ha="right", va="center")
    at = dict(zip(GROUPS, points, strict=True))
    for group in (16, 64):
        theme.note(ax, f"groups of {group}", at[group], (2, 16))
    table = results.table("gpu/four_bits/grid").records()
    mine = [r for r in table if r["kind"] == "symmetric"]
    ax.plot([r["bits"] for r in mine], [r["error"] for r in mine], "s", color=theme.ink, ms=6,
            mfc="none", mew=1.4, label="SmolLM2, 4 bits: groups of 32, 64, 96, 192, a row")
    ax.set(yscale="log", xlabel="bits a weight, scales included", ylabel="relative error",
           ylim=(0.03, 1.3), xlim=(1.5, 6.3))
    ax.set_yticks([0.05, 0.1, 0.2, 0.5, 1], ["0.05", "0.1", "0.2", "0.5", "1"])
    ax.minorticks_off()
    ax.legend(loc="upper right")
    return fig
