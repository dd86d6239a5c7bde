"""The student's training: divergence and acceptance over the tokens it has learned from."""

from infero import results


def draw(theme):
    fig, (left, right) = theme.figure(7.2, 3.2, columns=2)
    curve = results.table("gpu/student/curve").records()
    tokens = [r["tokens"] / 1e6 for r in curve]
    left.plot(tokens, [r["kl"] for r in curve], "o-", ms=3, color=theme.blue)
    left.set(yscale="log", xlabel="million tokens", title="KL to the teacher, nats a token")
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100)
             if min(r["kl"] for r in curve) <= t <= max(r["kl"] for r in curve)]
    left.set_yticks(ticks, [f"{t:g}" for t in ticks])
    left.minorticks_off()
    right.plot(tokens, [100 * r["acceptance"] for r in curve], "s-", ms=3, color=theme.green)
    right.set(xlabel="million tokens", title="drafted tokens accepted, %", ylim=(0, 100))
    return fig
