"""The teacher's and the student's distribution of the worked example at three temperatures."""

import torch

TEACHER, STUDENT = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])


def draw(theme):
    fig, axes = theme.figure(7.2, 2.7, columns=3, sharey=True)
    for ax, t in zip(axes, (1.0, 2.0, 4.0), strict=True):
        p, q = (TEACHER / t).softmax(0), (STUDENT / t).softmax(0)
        for i in range(3):
            ax.bar(i - 0.19, p[i], 0.36, color=theme.blue, label="teacher p" if not i else None)
            ax.bar(i + 0.19, q[i], 0.36, color="none", edgecolor=theme.vermilion, hatch="////",
                   linewidth=1.2, label="student q" if not i else None)
            pull = float(t * (q[i] - p[i]))
            ax.text(i, max(float(p[i]), float(q[i])) + 0.02, f"{pull:+.2f}".replace("-", "−"),
                    ha="center", fontsize=9, color=theme.ink)
        ax.set(title=f"T = {t:g}", ylim=(0, 0.82))
        ax.set_xticks(range(3), list("abc"))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("probability")
    axes[0].legend(loc="upper right")
    return fig
