"""What it costs to bring a preempted request back: recompute, recompute in the slack, or swap."""

from infero import hardware, results, roofline, simulate
from infero.simulate import RooflineCost


def draw(theme):
    shape, device = roofline.shape("llama-3-8b"), hardware.measured("h100")
    cost = RooflineCost(shape, device, results.get("amd-epyc-2c/scheduling/share").value)
    link = results.get("h100/pitfalls/copy_pinned").value
    launch = results.get("h100/pitfalls/launch").value
    token = roofline.kv_bytes_per_token(shape)
    lengths = [2**i for i in range(4, 14)]
    decoding = [(1, 1024)] * 32
    beside = simulate.step_s(cost, decoding)
    alone = [simulate.step_s(cost, [(n, n)]) for n in lengths]
    extra = [simulate.step_s(cost, [*decoding, (n, n)]) - beside for n in lengths]
    swap = [2 * n * token / link for n in lengths]
    small = [2 * n * token / link + 2 * launch * 2 * shape.num_layers * n / 16 for n in lengths]

    fig, ax = theme.figure(7.2, 3.5)
    lines = (("recompute, in a step of its own", alone, "o-", theme.vermilion),
             ("recompute, beside 32 decoding requests", extra, "s-", theme.amber),
             ("swap, a copy for each layer of each block", small, "^--", theme.green),
             ("swap, out and in at full speed", swap, "D-", theme.blue))
    for name, values, mark, color in lines:
        ax.plot(lengths, [1e3 * v for v in values], mark, color=color, markersize=4, label=name)
    ax.set(xscale="log", yscale="log", xlabel="tokens in the preempted request's cache",
           ylabel="time until it goes on (ms)", ylim=(0.02, 900))
    ax.set_xticks([16, 64, 256, 1024, 4096], ["16", "64", "256", "1,024", "4,096"])
    ax.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    ax.minorticks_off()
    ax.legend(loc="upper left")
    return fig
