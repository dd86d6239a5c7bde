"""The landing page's picture: measured decode throughput under the line that limits it."""

from infero import hardware, results, roofline


def draw(theme):
    sweep = results.table("gpu/roofline_sweep/decode_by_batch")
    about = results.provenance("gpu/roofline_sweep/decode_by_batch")
    card = hardware.measured(about["device"]["slug"])
    model = roofline.shape("llama-3-8b")
    batches, contexts = sweep.column("batch"), sweep.column("context")
    measured = [b / t for b, t in zip(batches, sweep.column("time"), strict=True)]
    limit = [
        roofline.predict(model, card, batch=b, context=c).tokens_per_s
        for b, c in zip(batches, contexts, strict=True)
    ]

    rates = [results.get(f"gpu/roofline_sweep/decode_b{b}_rate").value for b in (1, 256)]

    figure, ax = theme.figure(7.2, 3.5)
    ax.plot(batches, limit, color=theme.blue, linewidth=2.2)
    ax.fill_between(batches, limit, 1e6, color=theme.blue, alpha=0.07, linewidth=0)
    ax.plot(batches, measured, "o", color=theme.accent, markersize=6)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set(
        ylim=(80, max(limit) * 2.2),
        xlabel="requests answered together (batch)",
        ylabel="tokens per second, all requests",
    )
    ticks = [b for b in batches if b & (b - 1) == 0]
    ax.set_xticks(ticks, [f"{b}" for b in ticks])
    ax.minorticks_off()
    ax.set_yticks([100, 1000, 10_000], ["100", "1,000", "10,000"])
    middle = len(batches) // 2 - 2
    theme.note(
        ax, "what memory and arithmetic allow", (batches[middle], limit[middle]), (-70, 42)
    )
    theme.note(
        ax, f"measured: {rates[0]:,.0f} tokens/s", (batches[0], measured[0]), (22, -9)
    )
    theme.note(
        ax, f"{rates[1]:,.0f} tokens/s", (batches[-1], measured[-1]), (-70, -42)
    )
    return figure
