"""Four GPUs, together or apart: inter-token latency, and who kept both limits, over the load."""

from infero import results

KEY = "amd-epyc-2c/scheduling/disaggregation"
NAMES = {"whole": ("together, no chunks", "v--", 1), "chunked": ("together, budget 512", "s-", 0),
         "1 + 3": ("1 prefill + 3 decode", "o-", 3), "2 + 2": ("2 prefill + 2 decode", "^-", 2),
         "3 + 1": ("3 prefill + 1 decode", "D:", 4)}


def draw(theme):
    rows = results.table(KEY).records()
    fig, (left, right) = theme.figure(7.2, 3.5, columns=2)
    for placement, (name, mark, color) in NAMES.items():
        mine = [r for r in rows if r["placement"] == placement]
        shade = theme.palette[color]
        left.plot([r["rate"] for r in mine], [1e3 * r["itl_p99"] for r in mine], mark, color=shade,
                  markersize=4, label=name)
        right.plot([r["rate"] for r in mine], [100 * r["attainment"] for r in mine], mark,
                   color=shade, markersize=4)
    left.set(yscale="log", xlabel="requests per second, all four GPUs",
             ylabel="p99 inter-token latency (ms)", title="How smooth", ylim=(8, 1100))
    left.set_yticks([10, 20, 50, 100], ["10", "20", "50", "100"])
    left.minorticks_off()
    left.legend(loc="upper left", fontsize=8.5)
    right.set(xlabel="requests per second, all four GPUs", ylabel="per cent within both limits",
              title="TTFT ≤ 1 s and TPOT ≤ 15 ms", ylim=(0, 104))
    return fig
