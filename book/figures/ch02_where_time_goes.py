"""One decode step at batch 1 taken apart: from the bytes' time to a step launched from Python."""

from infero import results


def draw(theme):
    sweep = "gpu/roofline_sweep"

    def ms(key):
        return 1e3 * results.get(f"{sweep}/{key}").value

    steps = [
        ("the bytes at the read limit", ms("decode_b1_predicted")),
        ("+ real matrix products", ms("decode_b1_matrices")),
        ("+ attention", ms("decode_b1_attention")),
        ("+ norms, rotation, residuals", ms("decode_b1")),
        ("+ launches from Python", ms("decode_b1_no_graph")),
    ]
    figure, ax = theme.figure(7.2, 2.6)
    before = 0.0
    colors = [theme.blue, theme.green, theme.purple, theme.amber, theme.vermilion]
    for y, ((_name, value), color) in enumerate(zip(steps, colors, strict=True)):
        ax.barh(y, value - before, left=before, height=0.62, color=color)
        if y:
            ax.plot([before, before], [y - 1.31, y - 0.31], color=theme.muted, linewidth=0.8)
            text = f"+{value - before:.2f} → {value:.2f} ms"
        else:
            text = f"{value:.2f} ms"
        ax.text(value + 0.08, y, text, va="center", fontsize=9)
        before = value
    ax.set_yticks(range(len(steps)), [name for name, _ in steps])
    ax.invert_yaxis()
    ax.set(xlabel="ms a token", xlim=(0, steps[-1][1] * 1.22))
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return figure
