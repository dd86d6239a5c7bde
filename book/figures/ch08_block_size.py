"""What the block size costs: the empty end of the last block, and the shared end that is lost."""

from infero import results

SOURCE = "amd-epyc-2c/fragmentation/block_size"


def draw(theme):
    rows = results.table(SOURCE).records()
    size = [row["block_size"] for row in rows]
    fig, (left, right) = theme.figure(7.2, 2.9, columns=2)
    left.plot(size, [row["expected"] for row in rows], color=theme.muted, label="(B − 1)/2")
    left.plot(size, [row["empty"] for row in rows], "o", color=theme.blue, label="simulated")
    left.set(xscale="log", yscale="symlog", xlabel="block size B (tokens)", ylim=(0, 300),
             title="Empty slots a request")
    left.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    left.legend(loc="upper left")
    right.plot(size, [100 * row["share"] for row in rows], "o-", color=theme.vermilion)
    right.set(xscale="log", xlabel="block size B (tokens)", ylim=(0, None),
              title="Share of the slots in blocks (%)")
    at = size.index(16)
    theme.note(right, f"B = 16: {100 * rows[at]['share']:.1f} %", (16, 100 * rows[at]["share"]),
               (-30, 34))
    for ax in (left, right):
        ax.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
        ax.minorticks_off()
    return fig
