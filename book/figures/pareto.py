"""What each method costs in quality, and what it buys in bytes and in speed."""

from infero import results

QUALITY = "amd-epyc-2c/quality/methods"
MARKS = {"rtn": "o", "gptq": "s", "awq": "^", "qat": "v"}  # of the methods with four bits or fewer
NAMES = {"rtn": "round to nearest", "gptq": "GPTQ", "awq": "AWQ", "qat": "QAT"}
ROWS = {  # a line of the table: what stands beside its point; None: nothing does
    "int8_tensor": "int8, one scale\na matrix", "int8": "int8", "w8a8": "W8A8",
    "smoothquant": "SmoothQuant", "outliers": "LLM.int8()", "fp8": "FP8", "nf4": None,
    "mxfp4": "MXFP4", "nvfp4": None, "rtn4_g64": None, "gptq4_g64": None, "awq4_g64": None,
    "qat4_g64": None, "rtn4_ch": None, "gptq4_ch": None, "awq4_ch": None, "rtn3_g64": None,
    "gptq3_g64": None, "awq3_g64": None, "qat3_g64": None, "rtn3_ch": None, "gptq3_ch": None,
    "awq3_ch": None,
}
UNRUN = ("int8_tensor", "nf4", "mxfp4", "nvfp4")  # rounded to, but no kernel reads them
CPU = {"int8": "int8_rate", "int4": "int4_rate"}  # values of cpu_decode by a line's format
GPU = {"int8": "llama3_8b_int8_rate", "int4": "llama3_8b_int4_rate", "fp8": "llama3_8b_fp8_rate"}


def draw(theme):
    fig, axes = theme.figure(7.2, 4.7, 1, 3, sharey=True, width_ratios=(1.5, 1, 1))
    rows = [row for row in results.table(QUALITY).records() if row["name"] in ROWS]
    places = (lambda row: row["bytes"] / 1e6, speed("amd-epyc-2c/cpu_decode", CPU),
              speed("gpu/decode_speed", GPU))
    for ax, place in zip(axes, places, strict=True):
        for row in rows:
            x = place(row)
            if x is not None:
                point(theme, ax, row, x)
        front(theme, ax, [(place(row), row["kl"]) for row in rows if place(row) is not None],
              smaller=ax is axes[0])
    label(theme, axes[0], rows)
    axes[0].set(yscale="log", ylabel="KL divergence from the original, nats a token",
                xlabel="MB of weights read for a token, SmolLM2", title="Bytes")
    axes[1].set(xlabel="tokens/s, SmolLM2", title=cores())
    axes[2].set(xlabel="tokens/s, Llama-3-8B", title=gpu())
    for ax in axes[1:]:
        ax.set_xlim(0, 1.12 * ax.get_xlim()[1])
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=4)
    unquantized(theme, axes)
    fig.legend(handles=legend(theme, axes[0]), loc="outside lower center", ncols=5,
               handletextpad=0.2, columnspacing=1.2)
    return fig


def speed(place, keys):
    """From a line to the measured rate of its format, or None where it was not measured."""
    device, name = place.split("/")
    values = results.load(device, name)["values"]
    found = {kind: values[key]["value"] for kind, key in keys.items() if key in values}
    return lambda row: found.get(row["format"]) if runs(row) else None


def runs(row):
    """Whether the engine has a kernel for a line, and not only its rounding."""
    return row["activations"] == "16" and row["name"] not in UNRUN


def cores():
    return f"{results.provenance('amd-epyc-2c/cpu_decode/int8_rate')['device']['cores']} CPU cores"


def gpu():
    name = results.provenance("gpu/decode_speed/llama3_8b_int8_rate")["device"]["name"]
    return name.removeprefix("NVIDIA ").split()[0]


def point(theme, ax, row, x):
    few = row["bits"] < 8
    mark = MARKS.get(row["method"], "D") if few else "P"
    colour = (theme.vermilion if row["bits"] == 3 else theme.blue) if few else theme.green
    whole = row["group"] == "row" and few  # a scale a row: an empty mark
    ax.plot(x, row["kl"], mark, color=colour, markersize=6.5 if mark != "D" else 5,
            markerfacecolor=theme.page if whole else colour, markeredgewidth=1.3, zorder=3)


def front(theme, ax, points, smaller):
    """The line below which nothing is: no point has both less of x and less of y."""
    best, line = float("inf"), []
    for x, y in sorted(points, key=lambda p: (p[0] if smaller else -p[0], p[1])):
        if y < best:
            best = y
            line.append((x, y))
    if line:
        ax.step(*zip(*line, strict=True), where="post", color=theme.muted, linewidth=1, zorder=1)


def label(theme, ax, rows):
    for row in rows:
        if ROWS[row["name"]]:
            ax.annotate(ROWS[row["name"]], (row["bytes"] / 1e6, row["kl"]), xytext=(7, 0),
                        textcoords="offset points", va="center", fontsize=8.5, color=theme.ink)


def unquantized(theme, axes):
    """Where 16 bits stand, on the axis: their distance is 0."""
    rates = (results.get("amd-epyc-2c/quality/base_bytes").value / 1e6,
             results.get("amd-epyc-2c/cpu_decode/bf16_rate").value,
             results.get("gpu/decode_speed/llama3_8b_bf16_rate").value)
    for ax, x in zip(axes, rates, strict=True):
        ax.axvline(x, color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        ax.annotate("bf16", (x, 1), xycoords=("data", "axes fraction"), xytext=(-3, -2),
                    textcoords="offset points", ha="right", va="top", fontsize=8.5,
                    color=theme.muted, rotation=90)


def legend(theme, ax):
    """What shape and colour mean."""
    def mark(shape, colour, words, face=None):
        return ax.plot([], [], shape, color=colour, markersize=6, markeredgewidth=1.3,
                       markerfacecolor=face or colour, label=words)[0]

    shapes = [mark(MARKS[m], theme.ink, NAMES[m]) for m in MARKS]
    return [*shapes, mark("D", theme.ink, "block formats"),
            mark("P", theme.green, "8 bits"), mark("o", theme.blue, "4 bits"),
            mark("o", theme.vermilion, "3 bits"),
            mark("o", theme.ink, "empty: a scale a row", face=theme.page)]
