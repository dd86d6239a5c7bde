"""Instructions a weight by kind, counted in machine code, against the card's budget."""

from infero import results
from infero.kernels.steps import matmul

KINDS = ("integer", "conversion", "float", "tensor", "other")


def draw(theme):
    fig, ax = theme.figure(7.2, 3.5)
    table = results.table("amd-epyc-2c/instructions/by_kernel")
    names = table.column("kernel")
    left = [0.0] * len(names)
    hatches = ("", "//", "..", "xx", "")
    colors = (theme.blue, theme.vermilion, theme.green, theme.purple, theme.muted)
    for kind, hatch, color in zip(KINDS, hatches, colors, strict=True):
        width = [float(v) for v in table.column(kind)]
        ax.barh(names, width, left=left, label=kind, color=color, hatch=hatch, height=0.6,
                edgecolor=theme.page, linewidth=0.5, alpha=0.85)
        left = [a + b for a, b in zip(left, width, strict=True)]
    for i, total in enumerate(left):
        beside = 0.8 if 4.2 < total < 5.1 else 0.25  # not on the line of the budget
        ax.text(total + beside, i, f"{total:.1f}", va="center", fontsize=9.5, color=theme.ink)
    for bits, words in ((4.125, "budget of int4"), (8, "of int8")):
        budget = matmul.H100.instructions_per_s * bits / 8 / matmul.H100.bandwidth_bytes_per_s
        ax.axvline(budget, color=theme.ink, ls="--", lw=1.2)
        right = bits == 8
        ax.text(budget + (0.15 if right else -0.15), -0.8, f"{words}: {budget:.1f}", fontsize=9,
                color=theme.ink, va="center", ha="left" if right else "right")
    ax.set(xlabel="instructions a weight", ylim=(len(names) - 0.4, -1.2), xlim=(0, 25))
    ax.legend(loc="lower right", fontsize=9)
    return fig
