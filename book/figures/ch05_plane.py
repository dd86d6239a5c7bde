"""Two weights, the grid of their levels, and the ellipses of equal output error (chapter 5)."""

import numpy as np

H = np.array([[1.0, 0.85], [0.85, 1.0]])
W = np.array([2.4, 1.4])


def draw(theme):
    fig, ax = theme.figure(7.2, 4.0)
    grid = [(i, j) for i in range(6) for j in range(4)]
    values, vectors = np.linalg.eigh(H)
    turn = np.linspace(0, 2 * np.pi, 200)
    best, nearest = np.array([3, 1]), np.array([2, 1])

    def cost(point):
        d = np.asarray(point) - W
        return float(d @ H @ d)

    for level in (0.03, cost(best), 0.3, cost(nearest), 1.0):
        strong = level in (cost(best), cost(nearest))
        ring = vectors @ (np.sqrt(level / values)[:, None] * np.array([np.cos(turn), np.sin(turn)]))
        ax.plot(W[0] + ring[0], W[1] + ring[1], color=theme.ink if strong else theme.muted,
                lw=1.3 if strong else 0.8, ls="-" if strong else "--")
    ax.plot(*zip(*grid, strict=True), ".", color=theme.muted, ms=6, ls="none")
    ax.plot(*W, "o", color=theme.ink, ms=7)
    ax.plot(*nearest, "s", color=theme.vermilion, ms=10)
    ax.plot(*best, "D", color=theme.blue, ms=10)
    theme.note(ax, "the weights", tuple(W), (28, 26))
    theme.note(ax, f"nearest levels: error {cost(nearest):.2f}", tuple(nearest), (-130, -38))
    theme.note(ax, f"best levels: error {cost(best):.2f}", tuple(best), (34, -34))
    ax.set(xlabel="weight 1", ylabel="weight 2", xlim=(-0.2, 5.2), ylim=(-0.4, 3.4),
           aspect="equal", xticks=range(6), yticks=range(4))
    return fig
