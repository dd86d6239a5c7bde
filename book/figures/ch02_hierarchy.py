"""Capacity, bandwidth and latency of each level of an H100's memory, on logarithmic scales."""

from infero import hardware, results


def levels():
    """(name, capacity in bytes, bandwidth in byte/s or None, latency in s or None), inside out."""
    limits, seen = "gpu/limits", "gpu/hierarchy"
    slug = results.provenance("gpu/limits/memory")["device"]["slug"]
    card = hardware.DEVICES[slug]
    sms = results.get(f"{limits}/sm_count").value
    # A tensor core does 1,024 bf16 flop a clock here (dense); an SM has four. That gives the
    # clock behind the datasheet's peak, and with it shared memory's 32 banks of 4 bytes a clock.
    clock = card.peak("bf16") / (sms * 4 * 1024)
    return [
        ("registers", sms * results.get(f"{limits}/registers_per_sm").value, None, None),
        ("shared memory, L1", sms * results.get(f"{limits}/shared_memory_per_sm").value,
         sms * 128 * clock, results.get(f"{seen}/l1_latency").value),
        ("L2", results.get(f"{limits}/l2_size").value, results.get(f"{seen}/l2_bandwidth").value,
         results.get(f"{seen}/l2_latency").value),
        ("HBM", results.get(f"{limits}/memory").value,
         results.get(f"{limits}/read_bandwidth").value, results.get(f"{seen}/hbm_latency").value),
        ("another GPU\nover NVLink", None, card.link_bytes_per_s / 2, None),
    ]


def words(value, unit):
    """A value as it stands beside its bar."""
    if unit == "byte":
        return f"{value / 1e9:.0f} GB" if value > 1e9 else f"{value / 2**20:.0f} MiB"
    return f"{value / 1e12:.2g} TB/s" if unit == "byte/s" else f"{value * 1e9:.0f} ns"


def draw(theme):
    rows = levels()
    names = [row[0] for row in rows]
    colors = [theme.amber, theme.green, theme.blue, theme.vermilion, theme.muted]
    figure, axes = theme.figure(7.2, 2.7, 1, 3, sharey=True)
    for ax, column, title, unit, low in zip(
        axes, (1, 2, 3), ("Capacity", "Bandwidth", "Latency of a load"),
        ("byte", "byte/s", "s"), (3e6, 1.5e11, 8e-9), strict=True,
    ):
        values = [row[column] for row in rows]
        for y, (value, color) in enumerate(zip(values, colors, strict=True)):
            if value is None:
                continue
            ax.barh(y, value - low, left=low, height=0.62, color=color)
            text = words(value, unit)
            ax.text(value * 1.2, y, text, va="center", fontsize=8.8)
        ax.set_xscale("log")
        known = [v for v in values if v is not None]
        ax.set_xlim(low, max(known) ** 1.0 * (max(known) / low) ** 0.75)
        ax.set_title(title)
        ax.set_xticks([])
        ax.minorticks_off()
        ax.grid(False)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(length=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return figure
