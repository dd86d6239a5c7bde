"""Measured steps: tokens a second over the batch, and what a joining prompt costs the others."""

from infero import results

DEVICES = (("gpu", "Llama-3-8B, GPU", "o-", 0), ("amd-epyc-2c", "SmolLM2, CPU", "s--", 1))


def draw(theme):
    fig, (left, right) = theme.figure(7.2, 3.2, 1, 2)
    for device, label, mark, color in DEVICES:
        table = results.table(f"{device}/batching_steps/step_by_batch")
        batch, rate = table.column("batch"), table.column("rate")
        left.plot(batch, rate, mark, ms=4, color=theme.palette[color], label=label)
        joined = results.table(f"{device}/batching_steps/step_with_prefill")
        times = joined.column("time")
        right.plot(joined.column("prompt"), [t / times[0] for t in times], mark, ms=4,
                   color=theme.palette[color], label=label)
    left.set(xscale="log", yscale="log", title="throughput", xlabel="requests decoded at once",
             ylabel="tokens/s")
    left.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    left.minorticks_off()
    left.legend(loc="upper left")
    right.set(title="one step of 15 decodes", xlabel="tokens of a prompt that joins it",
              ylabel="× the step without it", ylim=(0, None))
    return fig
