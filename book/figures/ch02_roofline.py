"""The roofline of the measured card with measured matrix products, decode steps and prefills."""

from infero import results, roofline


def draw(theme):
    sweep = "gpu/roofline_sweep"
    bandwidth = results.get(f"{sweep}/read_bandwidth").value
    peak = results.get(f"{sweep}/matmul_bf16").value
    model = roofline.MODELS["llama-3-8b"]
    ridge = peak / bandwidth
    low, high = 0.7, 6000
    figure, ax = theme.figure(7.2, 4.0)
    ax.loglog([low, ridge, high], [low * bandwidth / 1e12, peak / 1e12, peak / 1e12],
              color=theme.ink, linewidth=2)
    ax.axvline(ridge, color=theme.muted, linewidth=0.8, linestyle=":")
    ax.text(ridge * 1.06, 0.75, f"ridge\n{ridge:.0f} flop/byte", fontsize=9, color=theme.muted)

    rows = [r for r in results.table(f"{sweep}/matmul").records() if r["layer"] == "gate_up"]
    xs, ys = [], []
    for r in rows:
        m, n, k = r["rows"], r["out"], r["in"]
        xs.append(2 * m * n * k / (2 * (n * k + m * k + m * n)))
        ys.append(2 * m * n * k / r["time"] / 1e12)
        if m in (1, 16, 256, 4096):
            ax.annotate(f"M = {m:,}", (xs[-1], ys[-1]), (-4, 7) if m < 4096 else (2, 9),
                        textcoords="offset points", fontsize=8.5, color=theme.blue,
                        ha="right" if m < 4096 else "center")
    ax.loglog(xs, ys, "o", color=theme.blue, markersize=5.5, label="one product, M rows (measured)")

    def points(name, marker, color, label, shown):
        for index, r in enumerate(results.table(f"{sweep}/{name}").records()):
            new = 1 if name == "decode_by_batch" else r["context"]
            weights = roofline.count_weights(model)
            flops = roofline.step_flops(model, weights, r["batch"], new, r["context"])
            moved = roofline.weight_bytes(model) + roofline.kv_bytes(
                model, r["batch"], new, r["context"])
            x, y = flops / moved, flops / r["time"] / 1e12
            ax.loglog(x, y, marker, color=color, markersize=6.5, markerfacecolor="none",
                      markeredgewidth=1.6, label=label if index == 0 else None)
            number = r["batch"] if new == 1 else r["context"]
            if number in shown:
                ax.annotate(f"{'B' if new == 1 else 'n'} = {number:,}", (x, y), (7, -11),
                            textcoords="offset points", fontsize=8.5, color=color)

    points("decode_by_batch", "s", theme.vermilion,
           "decode of B requests, context 1,024 (measured)", (1, 8, 64, 256))
    points("prefill", "D", theme.green, "prefill of n tokens (measured)", (512, 4096))
    ax.set(xlabel="arithmetic intensity, flop per byte", ylabel="TFLOP/s", xlim=(low, high),
           ylim=(0.6, 1500))
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    ax.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    ax.minorticks_off()
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.2))
    return figure
