"""Draws plots as SVG or PNG, the same bytes each time. Matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from forge_pipeline.reporting.outcome import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, PNG_DPI = 6.4, 3.4, 144
# Paul Tol's "bright" scheme: told apart by colour-blind readers too.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#888888")
MOST_POINTS = 1000
MOST_SERIES = 12
MOST_LABELS = 40
LONGEST_LABEL = 28
STYLE: dict[str, Any] = {
    "svg.hashsalt": "forge",
    "svg.fonttype": "path",
    # Titles and labels come from documents: a dollar sign is a dollar sign.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#30343b",
    "text.color": "#1c1f24",
    "xtick.color": "#565b64",
    "ytick.color": "#565b64",
}


def render(plot: Plot, format: Literal["svg", "png"] = "svg") -> bytes:  # noqa: A002 - matplotlib's own word for it
    """``plot`` on a white ground. Long lines are thinned to a thousand points, values that are not finite are gaps."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(cast(Any, STYLE)), warnings.catch_warnings():
        # A box stands for a character that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=PNG_DPI, facecolor="white", layout="constrained")
        axes = figure.subplots()
        axes.set_title(_shorten(plot.title, 80), fontsize=10.5, fontweight="bold", loc="left")
        axes.set_xlabel(_shorten(plot.x_label, 60))
        axes.set_ylabel(_shorten(plot.y_label, 40))
        axes.grid(axis="y" if plot.kind != "line" else "both", color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        _draw(axes, plot)
        buffer = io.BytesIO()
        # Without a date and the creator's version, equal plots are equal bytes.
        metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
        figure.savefig(buffer, format=format, metadata=metadata)
    return buffer.getvalue()


def _draw(axes: Axes, plot: Plot) -> None:
    series = {
        name: (list(x), [float(value) for value in y])
        for name, (x, y) in list(plot.series.items())[:MOST_SERIES]
        if len(x)
    }
    if not any(math.isfinite(value) for _, y in series.values() for value in y):
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color="#8a8f98")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    if plot.kind == "line":
        for index, (name, (x, y)) in enumerate(series.items()):
            keep = _thin(len(x))
            axes.plot(
                [x[i] for i in keep],
                [y[i] for i in keep],
                color=COLOURS[index % len(COLOURS)],
                linestyle=("-", "--")[index // len(COLOURS) % 2],
                linewidth=1.5,
                marker="o" if len(x) <= 12 else None,
                markersize=3.5,
                label=_label(name),
            )
        if all(isinstance(value, int) for x, _ in series.values() for value in x):
            axes.locator_params(axis="x", integer=True)
    elif plot.kind == "bar":
        _draw_bars(axes, series)
    else:
        for index, (name, (x, y)) in enumerate(series.items()):
            widths = _bin_widths([float(edge) for edge in x])
            alpha = 0.9 if len(series) == 1 else 0.55
            colour = COLOURS[index % len(COLOURS)]
            axes.bar(
                x, y, widths, align="edge", color=colour, alpha=alpha, label=_label(name), edgecolor="white", lw=0.4
            )
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8, loc="best")


def _draw_bars(axes: Axes, series: dict[str, tuple[list[Any], list[float]]]) -> None:
    labels = list(dict.fromkeys(label for x, _ in series.values() for label in x))[:MOST_LABELS]
    places = {label: place for place, label in enumerate(labels)}
    width = 0.8 / len(series)
    # Long or many labels read better beside lying bars than turned below standing ones.
    lying = len(labels) > 8 or max(len(str(label)) for label in labels) > 12
    for index, (name, (x, y)) in enumerate(series.items()):
        known = [(places[label], value) for label, value in zip(x, y, strict=True) if label in places]
        at = [place - 0.4 + width * (index + 0.5) for place, _ in known]
        values = [value for _, value in known]
        colour = COLOURS[index % len(COLOURS)]
        bars = (axes.barh if lying else axes.bar)(at, values, width * 0.92, color=colour, label=_label(name))
        if len(labels) * len(series) <= 12:
            axes.bar_label(bars, labels=[_number(value) for value in values], padding=2, fontsize=7.5)
    names = [_shorten(str(label), LONGEST_LABEL) for label in labels]
    if lying:
        axes.set_yticks(range(len(labels)), names, fontsize=8 if len(labels) <= 15 else 6)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        x_label, y_label = axes.get_xlabel(), axes.get_ylabel()
        axes.set_xlabel(y_label)
        axes.set_ylabel(x_label)
    else:
        axes.set_xticks(range(len(labels)), names)
    axes.margins(x=0.12 if lying else None, y=None if lying else 0.12)


def _bin_widths(edges: Sequence[float]) -> list[float]:
    """Distances to the next left edge; the last bin is as wide as the one before it."""
    widths = [right - left for left, right in itertools.pairwise(edges)]
    return [*widths, widths[-1] if widths else 1.0]


def _thin(points: int) -> list[int]:
    """At most ``MOST_POINTS`` indices, evenly spaced, with the first and the last."""
    if points <= MOST_POINTS:
        return list(range(points))
    return [round(place * (points - 1) / (MOST_POINTS - 1)) for place in range(MOST_POINTS)]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return f"{int(value):,}" if value == int(value) else f"{value:.4g}"


def _label(name: str) -> str:
    # Matplotlib leaves names with a leading underscore out of the legend.
    return _shorten(name, LONGEST_LABEL).lstrip("_") or "-"


def _shorten(text: str, longest: int) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
