"""What an H100's datasheet allows the largest product of an 8B layer: dense, 2:4 and its rivals.

Arithmetic only: the larger of the time for the bytes and the time for the multiplications.
"""

import numpy as np

OUT, IN = 28_672, 4_096
BYTES_PER_S = 3.35e12
FLOPS_PER_S = 989e12


def least_s(tokens, weight_bits, activation_bits=16, times_rate=1):
    """Seconds: weights and inputs are read and outputs written once, or everything multiplied."""
    moved = OUT * IN * weight_bits / 8 + tokens * (IN * activation_bits / 8 + OUT * 2)
    return np.maximum(moved / BYTES_PER_S, 2 * tokens * OUT * IN / (times_rate * FLOPS_PER_S))


def draw(theme):
    fig, (left, right) = theme.figure(7.2, 3.5, columns=2)
    tokens = np.geomspace(1, 4096, 200)
    dense, two_of_four = least_s(tokens, 16), least_s(tokens, 9, times_rate=2)
    left.plot(tokens, 1e6 * dense, "-", color=theme.ink, label="dense, zeros or not")
    left.plot(tokens, 1e6 * two_of_four, "--", color=theme.blue, label="2:4")
    left.set(xscale="log", yscale="log", xlabel="tokens", ylabel="least µs",
             title="28,672 × 4,096, bf16")
    left.legend(loc="upper left")
    for name, time, color, style in (
            ("2:4", two_of_four, theme.blue, "--"),
            ("W8A8", least_s(tokens, 8, 8, times_rate=2), theme.green, "-."),
            ("int4 weights", least_s(tokens, 4.125), theme.vermilion, ":")):
        right.plot(tokens, dense / time, style, color=color, label=name)
    right.axhline(1, color=theme.muted, lw=0.9)
    right.axhline(16 / 9, color=theme.muted, lw=0.9)
    right.text(1, 16 / 9 - 0.07, "16/9", fontsize=9, color=theme.ink, va="top")
    right.set(xscale="log", xlabel="tokens", title="times faster than bf16, at most",
              ylim=(0, 4.4))
    right.legend(loc="upper right")
    for ax in (left, right):
        ax.set_xticks((1, 16, 256, 4096), ("1", "16", "256", "4,096"))
        ax.minorticks_off()
    return fig
