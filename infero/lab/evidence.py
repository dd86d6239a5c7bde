"""Predict, measure, reconcile: numbers in the labs and where they come from.

`predict` takes the learner's guess before anything is measured, `measure` runs a measurement, or
replays a recorded one where it needs a GPU and there is none, and `reconcile` puts the two side by
side. A replayed number always says so, with its device and date. Chapter 3 explains the care that a
measurement needs.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from infero import results
from infero.lab import mode
from infero.lab.render import Card

Number = float | int


@dataclass(frozen=True)
class Prediction:
    """A number committed before measuring. `value` is None while there is none."""

    key: str
    value: float | None
    unit: str
    source: str  # "you" | "formula" | "nobody"

    @property
    def text(self) -> str:
        return "no prediction" if self.value is None else quantity(self.value, self.unit)


@dataclass(frozen=True)
class Measurement:
    """A measured number, just now or replayed; `label` says where and when."""

    key: str
    value: float
    unit: str
    device: str
    date: str
    replayed: bool
    samples: int = 1

    @property
    def text(self) -> str:
        return quantity(self.value, self.unit)

    @property
    def label(self) -> str:
        return f"{'replayed from ' if self.replayed else ''}{self.device}, {self.date}"


@dataclass(frozen=True)
class Result:
    """A recorded number of `results/`."""

    key: str
    value: float
    unit: str
    text: str
    label: str

    def __repr__(self) -> str:
        return f"{self.text} ({self.label})"


# -- recorded numbers -----------------------------------------------------------------------------


def result(key: str) -> Result:
    """The recorded value of `key`, for example `lab.result("gpu/limits/read_bandwidth")`."""
    found = results.get(key)
    return Result(key, float(found.value), found.unit, found.text, found.label)


def optional(key: str) -> results.Value | None:
    """The recorded value of `key`, or None; `*` for the device takes a CPU's before a GPU's."""
    device, _, rest = key.partition("/")
    devices = [device]
    if device == "*":
        known = {each.partition("/")[0] for each in results.names()}
        devices = sorted(known, key=lambda slug: (slug in results.GPU_ALIASES, slug))
    for each in devices:
        try:
            return results.get(f"{each}/{rest}")
        except results.ResultMissing:
            continue
    return None


# -- predict, measure, reconcile ------------------------------------------------------------------


def predict(
    key: str, value: Number | None, *, unit: str = "", formula: Callable[[], Number] | None = None
) -> Prediction:
    """Commit to a number before it is measured. None asks for one and goes on without."""
    if mode.current() == "solutions" and formula is not None:
        made = Prediction(key, float(formula()), unit, "formula")
        Card("info", "Prediction", [f"The formula says {made.text}."]).show()
        return made
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"a prediction is a number in {unit or 'plain units'}, not {value!r}"
        ) from None
    if number is None or not math.isfinite(number):
        inside = f" in {unit}" if unit else ""
        words = f"Put your own number{inside} in the cell above and run it again. "
        Card(
            "warning",
            "no prediction yet",
            [words + "A guess that is wrong teaches more than none; the lab goes on without it."],
        ).show()
        return Prediction(key, None, unit, "nobody")
    made = Prediction(key, number, unit, "you")
    _keep("predictions", key, {"value": number, "unit": unit})
    Card("info", "Prediction", [f"You say {made.text}. Now measure."]).show()
    return made


def measure(
    key: str, fn: Callable[[], Number | Sequence[Number]], *, unit: str = "", where: str = "cpu"
) -> Measurement:
    """Run `fn` and keep what it returns: one number, or several of which the median counts.

    `where="gpu"` measures only on a GPU and otherwise replays the recorded value of `key`.
    """
    if where not in ("cpu", "gpu"):
        raise ValueError(f"where={where!r}: a measurement is made on 'cpu' or 'gpu'")
    if where == "gpu" and not _has_gpu():
        found = results.get(key)
        made = Measurement(
            key, float(found.value), unit or found.unit, found.device, found.date[:10], True
        )
        Card(
            "replay",
            made.text,
            [
                f"This machine has no GPU. The number was recorded on {made.device} on "
                f"{made.date}; "
                "nothing was measured just now."
            ],
        ).show()
        return made
    value = fn()
    samples = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]
    if not samples or not all(math.isfinite(v) for v in samples):
        raise ValueError(f"the measurement of {key!r} gave {value!r}; it must be a finite number")
    from infero.lab.session import device_words

    made = Measurement(
        key,
        statistics.median(samples),
        unit,
        device_words(),
        time.strftime("%Y-%m-%d"),
        False,
        len(samples),
    )
    _keep("measurements", key, {"value": made.value, "unit": unit, "device": made.device})
    several = f"Median of {len(samples)}, " if len(samples) > 1 else ""
    Card("info", f"Measured: {made.text}", [f"{several}{made.device}, {made.date}."]).show()
    return made


def reconcile(
    prediction: Prediction | Sequence[Prediction],
    measurement: Measurement | Result | Sequence[Measurement | Result],
    *,
    labels: Sequence[str] = (),
) -> None:
    """Draw prediction and measurement on one axis and say their ratio."""
    said = [prediction] if isinstance(prediction, Prediction) else list(prediction)
    seen = [measurement] if isinstance(measurement, (Measurement, Result)) else list(measurement)
    if len(said) != len(seen):
        raise ValueError(f"{len(said)} predictions cannot be set beside {len(seen)} measurements")
    names = list(labels) or [p.key.rpartition("/")[2].replace("_", " ") for p in said]
    lines = [
        _in_words(p, m, name if len(said) > 1 else "")
        for p, m, name in zip(said, seen, names, strict=True)
    ]
    _draw(said, seen, names)
    replays = sorted({m.label for m in seen if getattr(m, "replayed", isinstance(m, Result))})
    if replays:
        lines.append(
            f"Not measured here: {'; '.join(r.removeprefix('replayed from ') for r in replays)}."
        )
    Card("info", "Prediction and measurement", lines).show()


def _in_words(p: Prediction, m: Measurement | Result, name: str) -> str:
    start = f"{name}: " if name else ""
    if p.value is None:
        return f"{start}measured {m.text}; there was no prediction to compare."
    words = f"{start}predicted {p.text}, measured {m.text}"
    if p.value <= 0 or m.value <= 0:
        return f"{words}: measured minus predicted is {quantity(m.value - p.value, m.unit)}."
    ratio = m.value / p.value
    verdict = (
        "they agree within a quarter"
        if 0.8 <= ratio <= 1.25
        else ("within a factor of two" if 0.5 <= ratio <= 2 else "find the term that is missing")
    )
    return f"{words}. Measured / predicted = {ratio:.3g}: {verdict}."


def _draw(said: list[Prediction], seen: list[Any], names: list[str]) -> None:
    """One row a pair: a hollow diamond predicted, a filled circle measured, on a log axis.

    The paper is white and the ink dark whatever the page, so that it reads in light and dark.
    """
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    ink, grey, blue, orange = "#1a1a1a", "#6b6b6b", "#0072b2", "#b34700"
    height = 1.3 + 0.55 * len(said)
    figure, axes = plt.subplots(figsize=(6.4, height), facecolor="white", layout="constrained")
    axes.set_facecolor("white")
    every = [p.value for p in said if p.value is not None] + [m.value for m in seen]
    positive = min(every) > 0
    for row, (p, m) in enumerate(zip(said, seen, strict=True)):
        if p.value is not None:
            axes.plot([p.value, m.value], [row, row], color=grey, linewidth=1.5, zorder=1)
            axes.plot(
                p.value,
                row,
                "D",
                markersize=10,
                markerfacecolor="white",
                markeredgewidth=2,
                color=orange,
                label="predicted" if row == 0 else None,
            )
            axes.annotate(
                p.text,
                (p.value, row),
                (0, 10),
                textcoords="offset points",
                ha="center",
                color=orange,
                fontsize=9,
            )
        axes.plot(
            m.value, row, "o", markersize=10, color=blue, label="measured" if row == 0 else None
        )
        axes.annotate(
            m.text,
            (m.value, row),
            (0, -17),
            textcoords="offset points",
            ha="center",
            color=blue,
            fontsize=9,
        )
    unit = seen[0].unit
    if positive:
        axes.set_xscale("log")
        axes.set_xlim(min(every) / 1.8, max(every) * 1.8)
        subs = (1, 2, 5) if max(every) < 20 * min(every) else (1,)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=6))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: quantity(x, unit)))
    axes.set_ylim(len(said) - 0.4, -0.7)
    axes.set_yticks(range(len(said)), names)
    axes.tick_params(colors=ink, which="both")
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(ink)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 1.02 + 0.22 / height),
        ncols=2,
        frameon=False,
        labelcolor=ink,
        fontsize=9,
    )
    if plt.get_backend().lower() != "agg":
        plt.show()
    plt.close(figure)


# -- helpers --------------------------------------------------------------------------------------


def quantity(value: float, unit: str) -> str:
    """A value in a unit a person would use: `0.0123, "s"` is 12.3 ms."""
    if unit == "s" and abs(value) >= 120:
        return f"{value / 60:.3g} min"
    return results.render(value, unit)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _keep(kind: str, key: str, entry: dict[str, Any]) -> None:
    """Keep the learner's own numbers, the last 20 a key; in learn mode only."""
    if mode.current() != "learn":
        return
    from infero.lab import folder

    kept = folder.read_json("measurements.json")
    table = kept.setdefault(kind, {})
    table[key] = [*table.get(key, []), {**entry, "date": folder.now()}][-20:]
    try:
        folder.write_json("measurements.json", kept)
    except OSError as error:
        Card("warning", "not kept", [f"The number could not be written: {error}."]).show()
