"""Bytes that attention moves: through memory, in tiles, and what must move (chapter 14)."""

from infero.kernels.steps import attention_io

HEADS, DIM = 32, 128


def draw(theme):
    lengths = [2**i for i in range(9, 16)]
    fig, (left, right) = theme.figure(7.2, 3.1, columns=2, width_ratios=(1.15, 1))

    def gigabytes(count):
        return [HEADS * count(n) / 1e9 for n in lengths]

    naive = gigabytes(lambda n: attention_io.naive_traffic(n, n, DIM).total)
    flash = gigabytes(lambda n: attention_io.flash_traffic(n, n, DIM, 128, 64).total)
    least = gigabytes(lambda n: 4 * n * DIM * 2)
    left.plot(lengths, naive, "s-", color=theme.vermilion, markersize=4)
    left.plot(lengths, flash, "o-", color=theme.blue, markersize=4)
    left.plot(lengths, least, "--", color=theme.muted)
    left.set(xscale="log", yscale="log", xlabel="tokens", title="GB moved, 32 heads",
             xlim=(450, 150_000))
    left.set_xticks([512, 2048, 8192, 32_768], ["512", "2k", "8k", "32k"])
    theme.label_lines(left, [(lengths[-1], naive[-1], "scores", theme.vermilion),
                             (lengths[-1], flash[-1], "tiles of 128", theme.blue),
                             (lengths[-1], least[-1], "once each", theme.muted)])
    left.minorticks_off()

    rows = [16, 32, 64, 128, 256, 512]
    n = 8192
    moved = [HEADS * attention_io.flash_traffic(n, n, DIM, r, 64).total / 1e9 for r in rows]
    right.plot(rows, moved, "o", color=theme.blue, label="counted")
    curve = [HEADS * (2 * n * DIM + n * n * DIM / r) * 2 / 1e9 for r in rows]
    right.plot(rows, curve, color=theme.muted, label="formula")
    right.set(xscale="log", yscale="log", xlabel="queries a tile", title="GB moved, 8,192 tokens")
    right.set_yticks([2, 5, 10, 20], ["2", "5", "10", "20"])
    right.set_xticks(rows, [str(r) for r in rows])
    right.minorticks_off()
    right.legend(loc="upper right")
    return fig
