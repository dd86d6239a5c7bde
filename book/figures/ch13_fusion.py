"""RMSNorm, SwiGLU and RoPE in every way we have, as shares of the copy limit."""

from infero import results

TITLES = {"rms_norm": "RMSNorm", "swiglu": "SwiGLU", "rope": "RoPE"}


def draw(theme):
    rows = results.table("gpu/gpu_experiments/fusion").records()
    limit = results.get("gpu/gpu_experiments/copy_limit").value
    groups = {op: [r for r in rows if r["operation"] == op] for op in TITLES}
    heights = [len(group) for group in groups.values()]
    fig, axes = theme.figure(7.2, 0.27 * sum(heights) + 1.3, rows=3, sharex=True,
                             gridspec_kw={"height_ratios": heights})
    for ax, (op, group) in zip(axes, groups.items(), strict=True):
        names = [r["way"] for r in group]
        shares = [100 * r["bandwidth"] / limit for r in group]
        colors = [theme.muted if n.startswith(("PyTorch", "torch")) else theme.blue
                  if n.startswith("Triton") else theme.vermilion for n in names]
        ax.barh(names, shares, color=colors, height=0.66)
        for i, share in enumerate(shares):
            ax.text(share + 1, i, f"{share:.0f} %", va="center", fontsize=9)
        ax.set(title=TITLES[op], xlim=(0, 112), ylim=(len(names) - 0.4, -0.6))
        ax.grid(axis="y", visible=False)
    axes[-1].set_xlabel("share of the copy limit (%)")
    return fig
