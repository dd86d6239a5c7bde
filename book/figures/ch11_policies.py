"""Time to first token by policy in a burst, and the longest wait over the rate of ageing."""

from infero import results

KEY = "amd-epyc-2c/scheduling"
NAMES = {"fcfs": ("first come", "-", 1), "sjf": ("shortest, lengths known", "-", 0),
         "sjf_guess": ("shortest, guesses off by e", "--", 2),
         "sjf_cap": ("shortest, prompt only", ":", 3)}


def draw(theme):
    rows = results.table(f"{KEY}/policies").records()
    fig, (left, right) = theme.figure(7.2, 3.4, columns=2)
    for policy, (name, style, color) in NAMES.items():
        mine = [r for r in rows if r["policy"] == policy]
        left.plot([r["ttft"] for r in mine], [r["percentile"] for r in mine], style,
                  color=theme.palette[color], label=name)
    left.set(xscale="log", xlabel="time to first token (s)", ylabel="per cent of the requests",
             title="A burst, by policy", ylim=(0, 148))
    left.set_yticks([0, 20, 40, 60, 80, 100])
    left.set_xticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    left.legend(loc="upper left", fontsize=8.5)

    rows = results.table(f"{KEY}/ageing").records()
    shown = [max(r["ageing"], 10) for r in rows]  # 0 has no place on a logarithmic axis
    for name, mark, color in (("longest", "o-", theme.vermilion), ("mean", "s-", theme.blue)):
        right.plot(shown, [r[name] for r in rows], mark, color=color, markersize=4,
                   label=f"shortest first, {name} wait")
    fcfs = {"longest": "fcfs_longest_wait", "mean": "fcfs_wait"}
    for name, style in (("longest", "--"), ("mean", ":")):
        right.axhline(results.get(f"{KEY}/{fcfs[name]}").value, linestyle=style, linewidth=1.2,
                      color=theme.muted, label=f"first come, {name} wait")
    right.set(xscale="log", yscale="log", xlabel="ageing (tokens per second)", ylabel="wait (s)",
              title="A long day, by ageing", ylim=(0.4, 400))
    right.set_xticks([10, 100, 1000], ["off", "100", "1,000"])
    right.set_yticks([1, 10, 100], ["1", "10", "100"])
    right.minorticks_off()
    right.legend(loc="upper right", fontsize=8.5)
    return fig
