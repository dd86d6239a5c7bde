"""Latency against load for five token budgets, and the share of requests that kept both limits."""

from infero import results

KEY = "amd-epyc-2c/scheduling/frontier"
STYLES = {256: ("o-", 3), 512: ("s-", 0), 1024: ("^-", 2), 2048: ("D-", 4), 8192: ("v--", 1)}


def draw(theme):
    rows = results.table(KEY).records()
    fig, (left, right) = theme.figure(7.2, 3.5, columns=2)
    for budget, (mark, color) in STYLES.items():
        mine = [r for r in rows if r["budget"] == budget]
        name = "no chunks" if budget == 8192 else f"budget {budget:,}"
        shade = theme.palette[color]
        left.plot([r["ttft_p99"] for r in mine], [1e3 * r["itl_p99"] for r in mine], mark,
                  color=shade, markersize=4, label=name)
        right.plot([r["rate"] for r in mine], [100 * r["attainment"] for r in mine], mark,
                   color=shade, markersize=4)
    left.set(xscale="log", yscale="log", xlabel="p99 time to first token (s)",
             ylabel="p99 inter-token latency (ms)", title="Along each line the load grows")
    left.set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    left.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
    left.minorticks_off()
    left.legend(loc="upper right")
    right.set(xlabel="requests per second", ylabel="per cent within both limits", ylim=(0, 104),
              title="TTFT ≤ 1 s and TPOT ≤ 25 ms")
    return fig
