"""The look of the book's figures: colours, type and a few shapes, for a light and a dark page.

A figure program has `draw(theme) -> matplotlib.figure.Figure`; the site calls it once with each
theme. Backgrounds are transparent. The palette is Okabe and Ito's, which people with the common
colour deficiencies can tell apart, shifted in lightness so that lines keep a contrast of 3:1 or
more with either page; never let colour alone carry a distinction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch


@dataclass(frozen=True)
class Theme:
    """Colours of one page; `palette` is blue, vermilion, green, purple, amber, sky."""

    name: str
    ink: str  # text and axes
    muted: str  # secondary text
    grid: str  # grid lines, hairlines
    surface: str  # fill of boxes
    page: str  # the page behind the figure, for halos and for text on strong colours
    accent: str  # the one thing to look at
    palette: tuple[str, ...]
    paper: str = "none"  # the figure's own background

    @property
    def blue(self) -> str:
        return self.palette[0]

    @property
    def vermilion(self) -> str:
        return self.palette[1]

    @property
    def green(self) -> str:
        return self.palette[2]

    @property
    def purple(self) -> str:
        return self.palette[3]

    @property
    def amber(self) -> str:
        return self.palette[4]

    @property
    def sky(self) -> str:
        return self.palette[5]

    def figure(
        self,
        width_in: float = 7.2,
        height_in: float = 3.4,
        rows: int = 1,
        columns: int = 1,
        **more: Any,
    ) -> tuple[Figure, Any]:
        """A figure and its axes (an array when there are several). The text column is 7.2 in."""
        return plt.subplots(
            rows, columns, figsize=(width_in, height_in), layout="constrained", **more
        )

    def canvas(self, width_in: float = 7.2, height_in: float = 3.0) -> tuple[Figure, Axes]:
        """A figure for drawing: no axes, one unit an inch, origin at the lower left."""
        figure = plt.figure(figsize=(width_in, height_in))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, width_in), ylim=(0, height_in))
        ax.axis("off")
        return figure, ax

    def box(
        self,
        ax: Axes,
        xy: tuple[float, float],
        w: float,
        h: float,
        text: str = "",
        *,
        color: str | None = None,
        fill: bool = False,
        size: float = 9.5,
        rounding: float = 0.06,
        **more: Any,
    ) -> FancyBboxPatch:
        """A box with its lower left at `xy`; `fill` paints it in `color`, else only its edge is."""
        edge = color or self.muted
        patch = FancyBboxPatch(
            xy, w, h, boxstyle=f"round,pad=0,rounding_size={rounding}", linewidth=1.1,
            edgecolor=edge, facecolor=edge if fill else self.surface, **more,
        )  # fmt: skip
        ax.add_patch(patch)
        if text:
            ax.text(
                xy[0] + w / 2, xy[1] + h / 2, text, ha="center", va="center", fontsize=size,
                color=self.page if fill else self.ink,
            )  # fmt: skip
        return patch

    def arrow(
        self,
        ax: Axes,
        a: tuple[float, float],
        b: tuple[float, float],
        text: str = "",
        *,
        color: str | None = None,
        style: str = "-|>",
        curve: float = 0.0,
        size: float = 9.0,
    ) -> FancyArrowPatch:
        """An arrow from `a` to `b`, its `text` above the middle."""
        patch = FancyArrowPatch(
            a, b, arrowstyle=style, mutation_scale=10, linewidth=1.2, color=color or self.muted,
            connectionstyle=f"arc3,rad={curve}", shrinkA=2, shrinkB=2,
        )  # fmt: skip
        ax.add_patch(patch)
        if text:
            middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
            ax.annotate(
                text, middle, xytext=(0, 4), textcoords="offset points", ha="center", va="bottom",
                fontsize=size, color=self.ink,
            )  # fmt: skip
        return patch

    def note(
        self,
        ax: Axes,
        text: str,
        xy: tuple[float, float],
        offset: tuple[float, float] = (12, 12),
        **more: Any,
    ) -> None:
        """Words beside a point, with a hairline to it; `offset` in points."""
        ax.annotate(
            text, xy, xytext=offset, textcoords="offset points", fontsize=9, color=self.ink,
            arrowprops={"arrowstyle": "-", "color": self.muted, "linewidth": 0.8}, **more,
        )  # fmt: skip

    def label_lines(self, ax: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
        """Name lines at their ends instead of in a legend: `(x, y, text, colour)` each."""
        for x, y, text, color in labels:
            ax.annotate(
                text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9,
                color=color, annotation_clip=False,
            )  # fmt: skip

    def rc(self, salt: str = "infero") -> dict[str, Any]:
        """Matplotlib's settings for this theme; `salt` makes the SVG's ids the same each time."""
        return {
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "svg.hashsalt": f"{salt}-{self.name}",
            "svg.fonttype": "path",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9.5,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 9.5,
            "axes.edgecolor": self.muted,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "text.color": self.ink,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.8,
            "lines.solid_capstyle": "round",
            "patch.edgecolor": self.muted,
            "hatch.color": self.muted,
            "axes.prop_cycle": cycler(color=self.palette),
        }


LIGHT = Theme(
    name="light",
    ink="#1b2430",
    muted="#5b6675",
    grid="#dde2e8",
    surface="#f4f6f8",
    page="#ffffff",
    accent="#c2410c",
    palette=("#0072b2", "#c2500a", "#00805d", "#a8508a", "#946200", "#2a86b8"),
)
DARK = Theme(
    name="dark",
    ink="#e4e8ee",
    muted="#9aa5b4",
    grid="#303a47",
    surface="#1d2530",
    page="#12171e",
    accent="#ff9a5c",
    palette=("#56b4e9", "#ff8a4c", "#35c79a", "#e39ac8", "#e6b437", "#8ed2f5"),
)


def theme(name: str = "light") -> Theme:
    """The theme of that name: "light" or "dark"."""
    return {"light": LIGHT, "dark": DARK}[name]
