"""One more token by recomputing and from the cache: operations by formula, time as measured."""

from infero import results

LAYERS, HEADS, DIM = 32, 32, 128
MATRIX_PARAMETERS = 6.98e9  # of the blocks of Llama-3-8B
HEAD_PARAMETERS = 0.525e9


def operations(context, rows):
    """Operations of a pass over the last `rows` tokens of a context."""
    pairs = sum(range(context - rows + 1, context + 1))
    return 2 * MATRIX_PARAMETERS * rows + 2 * HEAD_PARAMETERS + 4 * LAYERS * HEADS * DIM * pairs


def draw(theme):
    fig, (left, right) = theme.figure(7.2, 3.1, 1, 2)
    contexts = [2**i for i in range(7, 14)]
    naive = [operations(c, c) for c in contexts]
    cached = [operations(c, 1) for c in contexts]
    left.loglog(contexts, naive, "o-", ms=4, color=theme.vermilion)
    left.loglog(contexts, cached, "s-", ms=4, color=theme.blue)
    left.set(title="operations", ylabel="flop", xlabel="context in tokens")
    left.text(900, naive[3] * 2.2, "recompute", color=theme.vermilion, ha="right", fontsize=9)
    left.text(900, cached[3] * 1.7, "KV cache", color=theme.blue, ha="center", fontsize=9)
    table = results.table("gpu/chapter01/llama3_8b_loops")
    at, slow, fast = (table.column(n) for n in ("context", "naive", "cached"))
    right.loglog(at, [1e3 * t for t in slow], "o-", ms=4, color=theme.vermilion)
    right.loglog(at, [1e3 * t for t in fast], "s-", ms=4, color=theme.blue)
    right.set(title=f"time on {table.device}", ylabel="ms", xlabel="context in tokens")
    right.text(at[-3], 1e3 * slow[-3] * 1.6, "recompute", color=theme.vermilion, ha="right",
               fontsize=9)
    right.text(at[-2], 1e3 * fast[-2] * 0.72, "KV cache", color=theme.blue, ha="center", va="top",
               fontsize=9)
    low, high = right.get_ylim()
    right.set_ylim(low * 0.6, high)
    for ax in (left, right):
        ax.set_xticks(contexts[::2], [f"{c:,}" for c in contexts[::2]])
        ax.minorticks_off()
    return fig
