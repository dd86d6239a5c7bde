"""Decode latency over the batch: the bytes' time, stacked, and the measured steps above it."""

from infero import results, roofline


def draw(theme):
    sweep = "gpu/roofline_sweep"
    rows = results.table(f"{sweep}/decode_by_batch").records()
    bandwidth = results.get(f"{sweep}/read_bandwidth").value
    peak = results.get(f"{sweep}/matmul_bf16").value
    model = roofline.MODELS["llama-3-8b"]
    batches = [r["batch"] for r in rows]
    context = rows[0]["context"]
    weights = [1e3 * roofline.weight_bytes(model) / bandwidth] * len(batches)
    cache = [1e3 * roofline.kv_bytes(model, b, 1, context) / bandwidth for b in batches]
    states = [1e3 * roofline.activation_bytes(model, b, 1) / bandwidth for b in batches]
    compute = [1e3 * roofline.step_flops(model, roofline.count_weights(model), b, 1, context) / peak
               for b in batches]
    figure, ax = theme.figure(7.2, 3.5)
    ax.stackplot(batches, weights, cache, states, colors=[theme.blue, theme.green, theme.purple],
                 alpha=0.35, linewidth=0)
    total = [sum(parts) for parts in zip(weights, cache, states, strict=True)]
    ax.plot(batches, total, color=theme.ink, linewidth=1.6)
    ax.plot(batches, compute, color=theme.amber, linestyle="--")
    measured = [1e3 * r["time"] for r in rows]
    ax.plot(batches, measured, "o", color=theme.accent)
    at = len(batches) - 3
    ax.text(batches[-1] * 0.16, weights[0] * 0.72, "reading the weights", fontsize=9, va="center")
    ax.text(batches[-1] * 0.80, weights[0] + cache[-1] * 0.33, "reading the cache", fontsize=9,
            ha="center")
    theme.note(ax, "predicted", (batches[at], total[at]), (16, -26))
    theme.note(ax, "measured", (batches[at], measured[at]), (-60, 14))
    ax.text(batches[-1] * 1.01, compute[-1], "computing", fontsize=9, color=theme.amber,
            va="center")
    ax.set(xlabel=f"requests decoded at once, context {context:,}", ylabel="ms a step",
           xlim=(0, batches[-1] * 1.14), ylim=(0, measured[-1] * 1.08))
    return figure
