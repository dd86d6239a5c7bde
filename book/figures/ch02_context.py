"""Decode latency over the context at a fixed batch: weights stay, the cache grows."""

from infero import results, roofline


def draw(theme):
    sweep = "gpu/roofline_sweep"
    rows = results.table(f"{sweep}/decode_by_context").records()
    bandwidth = results.get(f"{sweep}/read_bandwidth").value
    model = roofline.MODELS["llama-3-8b"]
    batch = rows[0]["batch"]
    contexts = [r["context"] for r in rows]
    weights = 1e3 * roofline.weight_bytes(model) / bandwidth
    states = 1e3 * roofline.activation_bytes(model, batch, 1) / bandwidth
    cache = [1e3 * roofline.kv_bytes(model, batch, 1, c) / bandwidth for c in contexts]
    figure, ax = theme.figure(7.2, 3.2)
    ax.stackplot(contexts, [weights + states] * len(contexts), cache,
                 colors=[theme.blue, theme.green], alpha=0.35, linewidth=0)
    total = [weights + states + c for c in cache]
    ax.plot(contexts, total, color=theme.ink, linewidth=1.6)
    measured = [1e3 * r["time"] for r in rows]
    ax.plot(contexts, measured, "o", color=theme.accent)
    equal = roofline.weight_bytes(model) / roofline.kv_bytes_per_token(model) / batch
    ax.plot([equal, equal], [0, 2 * weights], color=theme.muted, linestyle=":", linewidth=1)
    ax.text(equal * 1.02, weights * 0.12, f"from {equal:,.0f} tokens on, more cache than weights",
            fontsize=9)
    ax.text(contexts[-1] * 0.2, weights * 0.5, "weights", fontsize=9.5, va="center")
    ax.text(contexts[-1] * 0.82, weights + cache[-1] * 0.3, "cache", fontsize=9.5, va="center")
    theme.note(ax, "predicted", (contexts[-2], total[-2]), (18, -24))
    theme.note(ax, "measured", (contexts[-2], measured[-2]), (-70, 22))
    ax.set(xlabel=f"context of each of {batch} requests, tokens", ylabel="ms a step",
           xlim=(0, contexts[-1] * 1.03), ylim=(0, measured[-1] * 1.08))
    ax.set_xticks([0, *contexts[2:]], ["0", *(f"{c:,}" for c in contexts[2:])])
    return figure
