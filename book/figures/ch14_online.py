"""The worked example: scores in the order they come, maximum, sum and mean after each block."""

import math

SCORES = (1.0, 2.0, 4.0, 3.0, 2.0, 5.0)
VALUES = (10.0, 20.0, 40.0, 0.0, 30.0, 20.0)
SIZE = 2


def draw(theme):
    fig, (left, right) = theme.figure(7.2, 2.8, columns=2, width_ratios=(1, 1.1))
    m, total, acc, steps = -math.inf, 0.0, 0.0, []
    for start in range(0, len(SCORES), SIZE):
        block = SCORES[start : start + SIZE]
        new = max(m, *block)
        shrink = math.exp(m - new)
        weights = [math.exp(s - new) for s in block]
        total = total * shrink + sum(weights)
        acc = acc * shrink + sum(w * v for w, v in zip(weights, VALUES[start : start + SIZE],
                                                       strict=True))
        m = new
        steps.append((m, shrink, total, acc / total))
    xs = range(1, len(SCORES) + 1)
    left.bar(xs, SCORES, color=[theme.blue, theme.green, theme.purple][0], alpha=0.55, width=0.7)
    reach = [m for m, *_ in steps for _ in range(SIZE)]
    left.step(xs, reach, where="mid", color=theme.vermilion)
    for cut in (2.5, 4.5):
        left.axvline(cut, color=theme.muted, linewidth=0.8, linestyle=":")
    left.set(xlabel="key", title="scores, and the running maximum", ylim=(0, 6), xticks=list(xs))
    left.grid(axis="x", visible=False)
    blocks = [1, 2, 3]
    right.plot(blocks, [mean for *_, mean in steps], "o-", color=theme.blue)
    for b, (_, shrink, total, mean) in zip(blocks, steps, strict=True):
        factor = "first" if b == 1 else f"× {shrink:.3f}"
        right.annotate(f"{factor}\nℓ = {total:.3f}\nout = {mean:.2f}", (b, mean),
                       xytext=(0, 14 if b != 2 else -44), textcoords="offset points", ha="center",
                       fontsize=9)
    right.set(xlabel="block", title="result after each block", xticks=blocks, ylim=(8, 46),
              xlim=(0.5, 3.5))
    right.grid(axis="x", visible=False)
    return fig
