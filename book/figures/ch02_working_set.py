"""Latency and bandwidth measured on the GPU, over the size of the buffer that is read."""

from infero import results


def draw(theme):
    latency = results.table("gpu/hierarchy/latency")
    bandwidth = results.table("gpu/hierarchy/bandwidth")
    l2 = results.get("gpu/limits/l2_size").value
    l1 = results.get("gpu/limits/shared_memory_per_sm").value
    figure, (left, right) = theme.figure(7.2, 3.1, 1, 2)
    left.plot(latency.column("working_set"), [1e9 * t for t in latency.column("latency")], "o-",
              color=theme.blue, markersize=4)
    left.set(title="One load after another", ylabel="ns per load")
    left.set_ylim(0, None)
    right.plot(bandwidth.column("working_set"), [1e-12 * b for b in bandwidth.column("bandwidth")],
               "o-", color=theme.vermilion, markersize=4)
    right.set(title="All SMs at once, past L1", ylabel="TB/s read")
    right.set_ylim(0, None)
    ticks = {2**14: "16 KiB", 2**18: "256 KiB", 2**22: "4 MiB", 2**26: "64 MiB", 2**30: "1 GiB"}
    for ax, sizes in ((left, latency.column("working_set")),
                      (right, bandwidth.column("working_set"))):
        ax.set_xscale("log")
        shown = {size: text for size, text in ticks.items() if size >= min(sizes) * 0.9}
        if ax is right:
            shown = {2**20: "1 MiB", 2**24: "16 MiB", 2**27: "128 MiB", 2**30: "1 GiB"}
        ax.set_xticks(list(shown), list(shown.values()))
        ax.minorticks_off()
        ax.set_xlabel("buffer")
        top = ax.get_ylim()[1]
        ax.axvline(l2, color=theme.green, linestyle="--", linewidth=1)
        ax.text(l2 / 1.12, top * 0.04, "L2 size", rotation=90, fontsize=8.5, color=theme.green,
                ha="right", va="bottom")
    left.axvline(l1, color=theme.amber, linestyle="--", linewidth=1)
    left.text(l1 * 1.12, left.get_ylim()[1] * 0.55, "L1 and shared\nmemory of one SM", fontsize=8.5,
              color=theme.amber, va="bottom")
    return figure
