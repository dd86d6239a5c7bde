"""Gaps between the tokens of a running request while a prompt of 8,192 tokens arrives."""

from infero import hardware, results, roofline, simulate
from infero.scheduler import SchedulerConfig
from infero.simulate import Job, RooflineCost

START_S = 3.0


def draw(theme):
    cost = RooflineCost(roofline.shape("llama-3-8b"), hardware.measured("h100"),
                        results.get("amd-epyc-2c/scheduling/share").value)
    jobs = [Job(0.0, 960, 400) for _ in range(32)] + [Job(START_S, 8192, 16)]
    fig, (left, right) = theme.figure(7.2, 3.2, columns=2, width_ratios=[3, 2])
    for budget, mark, color in ((8192, "v--", 1), (2048, "D-", 4), (512, "s-", 0)):
        whole = budget == 8192
        run = simulate.simulate(jobs, SchedulerConfig(
            max_num_batched_tokens=budget, prefix_caching=False, chunked_prefill=not whole),
            cost, num_blocks=26_000)
        one = run.served[0]
        points = [(t - START_S, gap) for t, gap in
                  zip(one.token_times_s[1:], one.itl_s, strict=True) if -0.06 < t - START_S < 0.42]
        left.plot([1e3 * t for t, _ in points], [1e3 * gap for _, gap in points], mark,
                  color=theme.palette[color], markersize=3.5, linewidth=1.2,
                  drawstyle="steps-pre", label="no chunks" if whole else f"budget {budget:,}")
    left.set(yscale="log", xlabel="ms after the prompt arrives", ylabel="gap before the token (ms)",
             title="A reader beside a long prompt")
    left.set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    left.minorticks_off()
    left.set_xlim(-70, 640)
    left.legend(loc="upper right", fontsize=8.5)

    rows = results.table("amd-epyc-2c/scheduling/stall").records()
    for row in rows:
        whole = row["budget"] == 8192
        right.plot(1e3 * row["ttft"], 1e3 * row["gap"], "v" if whole else "o",
                   color=theme.vermilion if whole else theme.blue)
        right.annotate("no chunks" if whole else f"{row['budget']:,}",
                       (1e3 * row["ttft"], 1e3 * row["gap"]), xytext=(7, 0),
                       textcoords="offset points", va="center", fontsize=9, color=theme.ink)
    right.set(yscale="log", xlabel="the long prompt's TTFT (ms)", xlim=(240, 450),
              ylabel="the readers' longest gap (ms)", title="What each budget costs")
    right.set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    right.minorticks_off()
    return fig
