"""Causal attention over the length: through memory, the lab's kernel, the engine's, PyTorch's."""

from infero import results

HEADS, DIM = 32, 128
WAYS = (("engine", "the engine's kernel", "^-"), ("sdpa", "PyTorch (FlashAttention-2)", "d--"),
        ("steps", "the lab's kernel", "o-"), ("naive", "through memory", "s-"))


def draw(theme):
    rows = results.table("gpu/attention_steps/prefill").records()
    colors = dict(engine=theme.green, sdpa=theme.muted, steps=theme.blue, naive=theme.vermilion)
    lengths = [row["length"] for row in rows]
    fig, (left, right) = theme.figure(7.2, 3.2, columns=2, width_ratios=(1.25, 1))
    for name, label, style in WAYS:
        rate = [2 * HEADS * DIM * row["length"] ** 2 / row[name] / 1e12 for row in rows]
        left.plot(lengths, rate, style, color=colors[name], markersize=4.5, label=label)
    left.set(xscale="log", ylim=(0, None), xlabel="tokens", title="TFLOP/s")
    for name in ("naive", "steps"):
        held = [max(row[f"{name}_memory"], 1e3) / 1e6 for row in rows]
        right.plot(lengths, held, "s-" if name == "naive" else "o-", color=colors[name],
                   markersize=4.5)
    right.set(xscale="log", yscale="symlog", xlabel="tokens", ylim=(-0.15, None),
              title="MB beyond inputs and result")
    for ax in (left, right):
        ax.set_xticks(lengths, [f"{n // 1024}k" if n >= 1024 else str(n) for n in lengths])
        ax.minorticks_off()
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4,
               handlelength=1.6, columnspacing=1.2)
    return fig
