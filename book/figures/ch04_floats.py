"""The step to the next number over the number's size, for int8 and the two eight-bit floats."""

from itertools import pairwise

import torch

from infero.quant import floats


def steps(values):
    """(size, relative step) pairs of neighbouring positive numbers."""
    pairs = []
    for low, high in pairwise(values[1:]):
        pairs += [(low, (high - low) / low), (high, (high - low) / high)]
    return pairs


def draw(theme):
    fig, ax = theme.figure(7.2, 3.5)
    codes = torch.arange(127, dtype=torch.uint8)
    grids = (
        ("int8", [448 / 127 * k for k in range(128)], theme.vermilion, "-"),
        ("E4M3", floats.from_e4m3(codes).tolist(), theme.blue, "-"),
        ("E5M2", [v for v in floats.from_e5m2(codes).tolist() if v <= 57344], theme.green, "--"),
    )
    for _, values, color, style in grids:
        at, step = zip(*[(a, s) for a, s in steps(values) if 2e-4 < a < 500], strict=True)
        ax.loglog(at, [100 * s for s in step], style, color=color, lw=1.4)
    ax.text(6.5, 42, "int8", color=theme.vermilion, fontsize=9.5, ha="right")
    ax.text(0.012, 42, "E4M3", color=theme.blue, fontsize=9.5, ha="left")
    ax.text(0.0011, 26.5, "E5M2", color=theme.green, fontsize=9.5, va="bottom", ha="left")
    ax.set(xlabel="size of the number (the largest of int8 and of E4M3 at 448)",
           ylabel="step to the next, %", xlim=(2e-4, 600), ylim=(0.5, 150))
    ax.set_yticks([1, 10, 100], ["1", "10", "100"])
    return fig
