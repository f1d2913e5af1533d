"""Charts are drawn the same each time, whatever their titles and values hold."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Literal
from xml.etree import ElementTree

import pytest

from forge_pipeline.reporting import Plot
from forge_pipeline.reporting.charts import MOST_POINTS, render

LINE = Plot("Loss", "line", "step", "nats", {"train": ([1, 2, 3], [8.0, 4.0, 2.0]), "held out": ([3], [3.0])})
PLOTS = [
    LINE,
    Plot("Dropped", "bar", "rule", "documents", {"": (["short", "a rule with a long name"], [3.0, 40.0])}),
    Plot("Stages", "bar", "stage", "share", {"a": (["x", "y"], [1.0, 2.0]), "b": (["y"], [3.0])}),
    Plot("Lengths", "histogram", "tokens", "documents", {"": ([0, 10, 20], [5.0, 2.0, 1.0])}),
    Plot("Nothing", "line", "step", "loss", {}),
    Plot("$x_{ \\frac <b>&\x00\n", "line", "$", "%s{}", {"_hidden": ([1, 2], [math.nan, math.inf]), "$": ([1], [1.0])}),
    Plot("No number at all", "bar", "x", "y", {"": (["a"], [math.nan])}),
]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.title[:12].strip("$\\ "))
def test_every_plot_is_drawn_and_drawn_again_as_the_same_bytes(plot: Plot) -> None:
    drawn = render(plot)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert render(plot) == drawn


def test_another_process_draws_the_same_bytes() -> None:
    code = (
        "import sys; from forge_pipeline.reporting import Plot; from forge_pipeline.reporting.charts import render\n"
        f"sys.stdout.buffer.write(render(Plot(**{vars(LINE)!r})))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == render(LINE)


def test_other_values_draw_another_picture() -> None:
    other = Plot("Loss", "line", "step", "nats", {"train": ([1, 2, 3], [8.0, 4.0, 2.1])})
    assert render(other) != render(LINE)


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG\r\n")])
def test_both_formats_are_what_they_say(kind: Literal["svg", "png"], start: bytes) -> None:
    assert render(LINE, kind).startswith(start)


def test_a_long_series_stays_a_small_file() -> None:
    steps = list(range(50 * MOST_POINTS))
    plot = Plot("Long", "line", "step", "loss", {"train": (steps, [math.sin(step) for step in steps])})
    assert len(render(plot)) < 100_000
