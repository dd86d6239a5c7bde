"""What is on an H100: the SMs, one of them enlarged, and the memories in their sizes."""

from infero import results


def draw(theme):
    limits = "gpu/limits"
    sms = round(results.get(f"{limits}/sm_count").value)
    shared_kib = results.get(f"{limits}/shared_memory_per_sm").value / 1024
    registers_kib = results.get(f"{limits}/registers_per_sm").value / 1024
    l2_mib = results.get(f"{limits}/l2_size").value / 2**20
    memory_gb = results.get(f"{limits}/memory").value / 1e9

    figure, ax = theme.canvas(7.2, 3.9)
    # Left: the chip.
    ax.text(0.1, 3.7, f"The chip: {sms} SMs", fontsize=10.5, fontweight="bold", va="center")
    columns = 12
    rows = -(-sms // columns)
    size, gap = 0.215, 0.035
    for i in range(sms):
        x = 0.1 + (i % columns) * (size + gap)
        y = 3.24 - (i // columns) * (0.135 + gap)
        chosen = i == columns * 3 - 1
        theme.box(ax, (x, y), size, 0.135, color=theme.accent if chosen else theme.blue,
                  fill=True, rounding=0.02)
    width = columns * (size + gap) - gap
    bottom = 3.24 - (rows - 1) * (0.135 + gap)
    theme.box(ax, (0.1, bottom - 0.48), width, 0.36, f"L2 cache, {l2_mib:.0f} MiB",
              color=theme.green)
    theme.box(ax, (0.1, 0.12), width, 0.42, f"HBM, {memory_gb:.0f} GB", color=theme.vermilion)
    theme.arrow(ax, (0.1 + width / 2, 0.54), (0.1 + width / 2, bottom - 0.48), style="<|-|>")
    # Right: one SM.
    left, right, top = 3.65, 7.1, 3.45
    chosen_xy = (0.1 + (columns - 1) * (size + gap) + size, 3.24 - 2 * (0.135 + gap) + 0.07)
    for y in (0.12, top):
        ax.plot([chosen_xy[0], left], [chosen_xy[1], y], color=theme.muted, linewidth=0.8)
    theme.box(ax, (left, 0.12), right - left, top - 0.12, color=theme.accent)
    ax.text(left, 3.7, "One SM", fontsize=10.5, fontweight="bold", va="center")
    part_w = (right - left - 0.5) / 4
    for i in range(4):
        x = left + 0.1 + i * (part_w + 0.1)
        theme.box(ax, (x, 0.98), part_w, 2.35)
        ax.text(x + part_w / 2, 3.2, "warp\nscheduler", fontsize=8.5, ha="center", va="top")
        theme.box(ax, (x + 0.06, 2.3), part_w - 0.12, 0.5, "32 lanes\nfp32", size=8.5,
                  color=theme.blue)
        theme.box(ax, (x + 0.06, 1.66), part_w - 0.12, 0.56, "tensor\ncore", size=8.5,
                  color=theme.purple)
        theme.box(ax, (x + 0.06, 1.06), part_w - 0.12, 0.52,
                  f"registers\n{registers_kib / 4:.0f} KiB", size=8.5, color=theme.amber)
    theme.box(ax, (left + 0.1, 0.24), right - left - 0.2, 0.6,
              f"shared memory and L1: up to {shared_kib:.0f} KiB shared", color=theme.green)
    return figure
