"""What the cache does to a decode step and to capacity: share of the bytes, users that fit."""

from dataclasses import replace

from infero import hardware, roofline
from infero.cache import memory


def draw(theme):
    model = roofline.MODELS["llama-3-8b"]
    figure, (left, right) = theme.figure(7.2, 3.3, 1, 2)
    weights = roofline.weight_bytes(model)
    contexts = [2 ** (i / 4) for i in range(28, 69)]
    lines = ((1, theme.blue, "-", 2**15.6), (8, theme.vermilion, "--", 2**13),
             (64, theme.green, "-.", 2**10.3), (256, theme.purple, ":", 2**8.3))
    for users, color, style, at in lines:
        cache = [users * c * memory.kv_bytes_per_token(model) for c in contexts]
        left.plot(contexts, [100 * b / (b + weights) for b in cache], color=color, linestyle=style)
        here = users * at * memory.kv_bytes_per_token(model)
        left.annotate(f"{users}", (at, 100 * here / (here + weights)), (-4, 3),
                      textcoords="offset points", fontsize=9, color=color, ha="right")
    left.set(xscale="log", xlabel="context of each request", ylabel="cache, % of the bytes read",
             ylim=(0, 100), title="decode step, by requests")
    device = hardware.DEVICES["h100"]
    room = 0.9 * device.memory_bytes - 2 * roofline.parameters(model)
    for heads, color, style, name in ((32, theme.vermilion, "--", "32 KV heads"),
                                      (8, theme.blue, "-", "8 KV heads"),
                                      (1, theme.green, "-.", "1 KV head")):
        size = memory.kv_bytes_per_token(replace(model, num_kv_heads=heads))
        users = [room / (c * size) for c in contexts]
        right.plot(contexts, users, color=color, linestyle=style)
        theme.label_lines(right, [(contexts[-1], users[-1], name, color)])
    right.set(xscale="log", yscale="log", xlabel="context of each request", ylabel="requests",
              xlim=(100, 9e5), ylim=(0.3, 30_000),
              title=f"that fit on one {device.name.split()[1]}")
    right.set_yticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    for ax in (left, right):
        ax.set_xticks([128, 1024, 8192, 65536], ["128", "1k", "8k", "64k"])
        ax.minorticks_off()
    return figure
