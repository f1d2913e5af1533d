"""Progress and results in a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from forge_pipeline.cli.output import error_console

if TYPE_CHECKING:
    from rich.progress import TaskID

    from forge_pipeline.reporting import Check, Outcome, Scalar, Table

StageStatus = Literal["done", "reused", "failed", "skipped"]

MARKS: dict[StageStatus, tuple[str, str]] = {
    "done": ("✓", "green"),
    "reused": ("=", "cyan"),
    "failed": ("✗", "bold red"),
    "skipped": ("-", "dim"),
}
# Without a terminal, lines are written this far apart, in seconds: enough to see that it goes on.
PLAIN_INTERVAL = 10.0
# How many stages that are still to come are named.
UPCOMING_SHOWN = 4


class TerminalProgress:
    """Shows a run of several stages on stderr. Implements `reporting.Progress`, and may be used from any thread.

    In a terminal, finished stages stay as lines and the current one is redrawn below them: its tasks with the time
    left, the last training metrics, and what comes next. Elsewhere (a log file, CI) it writes plain lines.
    """

    def __init__(self, stages: Sequence[str] = (), console: Console | None = None) -> None:
        self.console = console or error_console()
        self._upcoming = list(stages)
        self._total_stages = len(stages)
        self._finished_stages = 0
        self._current: str | None = None
        self._stage_started = 0.0
        self._metrics_text = ""
        self._metrics_printed = 0.0
        self._lock = threading.RLock()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}", style="dim"),
            TimeElapsedColumn(),
            TextColumn("left", style="dim"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._live: Live | None = None

    def __enter__(self) -> TerminalProgress:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=self._render,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    # -- stages --------------------------------------------------------------------------------------------

    def stage_started(self, name: str) -> None:
        with self._lock:
            if name in self._upcoming:
                self._upcoming.remove(name)
            self._current = name
            self._stage_started = time.monotonic()
            self._metrics_text = ""
            self._metrics_printed = 0.0
        if self._live is None:
            self._line(Text(f"{self._position()}{name}: started"))

    def stage_finished(self, name: str, status: StageStatus, detail: str = "", seconds: float | None = None) -> None:
        """``seconds`` is what the stage took, if that is not the time since it started."""
        with self._lock:
            if name in self._upcoming:
                self._upcoming.remove(name)
            if seconds is None:
                seconds = time.monotonic() - self._stage_started if name == self._current else 0.0
            position = self._position()
            self._finished_stages += 1
            if name == self._current:
                self._current = None
                self._metrics_text = ""
        mark, style = MARKS[status]
        took = "" if status in ("reused", "skipped") else f" {format_seconds(seconds)}"
        self._line(
            Text.assemble(
                (f"{mark} ", style),
                position,
                (name, "bold"),
                (f" {status}{took}", style),
                f"  {detail}" if detail else "",
            )
        )

    def _position(self) -> str:
        if not self._total_stages:
            return ""
        return f"{min(self._finished_stages + 1, self._total_stages)}/{self._total_stages} "

    # -- reporting.Progress --------------------------------------------------------------------------------

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[_TerminalTask]:
        bar = self._bars.add_task(description, total=total, amount=_amount(0, total, unit))
        task = _TerminalTask(self, bar, description, total, unit)
        try:
            yield task
        finally:
            self._bars.remove_task(bar)
            if self._live is None:
                task.print_plain(last=True)

    def note(self, message: str) -> None:
        self._line(Text(f"  {message}", style="dim"))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        text = f"step {step}  " + "  ".join(f"{name} {format_number(value)}" for name, value in values.items())
        now = time.monotonic()
        with self._lock:
            self._metrics_text = text
            due = self._live is None and now - self._metrics_printed >= PLAIN_INTERVAL
            if due:
                self._metrics_printed = now
        if due:
            self._line(Text(f"  {text}"))

    # -- drawing -------------------------------------------------------------------------------------------

    def _line(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True)

    def _render(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = []
            if self._current:
                elapsed = format_seconds(time.monotonic() - self._stage_started)
                parts.append(Text.assemble("▸ ", self._position(), (self._current, "bold"), (f"  {elapsed}", "dim")))
            if self._bars.tasks:
                parts.append(self._bars.get_renderable())
            if self._metrics_text:
                parts.append(Text(f"  {self._metrics_text}", style="cyan"))
            if self._upcoming:
                shown = ", ".join(self._upcoming[:UPCOMING_SHOWN])
                rest = len(self._upcoming) - UPCOMING_SHOWN
                parts.append(Text(f"  next: {shown}" + (f" and {rest} more" if rest > 0 else ""), style="dim"))
            return Group(*parts)


class _TerminalTask:
    def __init__(self, owner: TerminalProgress, bar: TaskID, description: str, total: float | None, unit: str) -> None:
        self._owner = owner
        self._bar = bar
        self._description = description
        self._total = total
        self._unit = unit
        self._done = 0.0
        self._started = self._printed = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        if self._owner._live is None:
            self.print_plain()
            return
        self._owner._bars.update(self._bar, advance=amount, amount=_amount(self._done, self._total, self._unit))

    def print_plain(self, last: bool = False) -> None:
        """A line, if the last one was some time ago. The ``last`` one only for a task that had lines before."""
        now = time.monotonic()
        if last:
            if self._printed == self._started:
                return
        elif now - self._printed < PLAIN_INTERVAL:
            return
        self._printed = now
        text = f"  {self._description}: {_amount(self._done, self._total, self._unit)}"
        if self._total and 0 < self._done < self._total:
            left = (now - self._started) * (self._total - self._done) / self._done
            text += f", {format_seconds(left)} left"
        self._owner._line(Text(text))


def _amount(done: float, total: float | None, unit: str) -> str:
    text = format_number(done) if total is None else f"{format_number(done)}/{format_number(total)}"
    return f"{text} {unit}".rstrip()


# -- results -------------------------------------------------------------------------------------------------


def format_number(value: Scalar) -> str:
    """A figure as people read it: thousands separated, four significant digits after the point."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if value == int(value) if abs(value) < 1e15 else False:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def table_view(table: Table) -> RenderableType:
    """A `reporting.Table`, columns of numbers aligned to the right."""
    view = RichTable(
        title=Text(table.title), title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for index, column in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        numeric = any(isinstance(cell, int | float) for cell in cells) and not any(
            isinstance(cell, str) for cell in cells
        )
        view.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        view.add_row(*(Text(format_number(cell)) for cell in row))
    return view


def checks_view(checks: Sequence[Check]) -> RenderableType:
    """One line a check: whether it held, what it says, and the figures it was judged by."""
    lines = []
    for check in checks:
        mark, style = MARKS["done" if check.passed else "failed"]
        figures = "" if check.value is None else f"  {format_number(check.value)}"
        if check.value is not None and check.threshold is not None:
            figures += f" (threshold {format_number(check.threshold)})"
        lines.append(
            Text.assemble((f"{mark} ", style), (check.name, "bold"), f"  {check.description}", (figures, "dim"))
        )
    return Group(*lines)


def outcome_view(title: str, outcome: Outcome) -> RenderableType:
    """Counts, checks and tables of a stage."""
    parts: list[RenderableType] = [Text(title, style="bold underline")]
    if outcome.counts:
        parts.append(_pairs_view(outcome.counts))
    if outcome.checks:
        parts.append(checks_view(outcome.checks))
    for table in outcome.tables:
        parts += [Text(), table_view(table)]
    return Group(*parts)


def summary_view(title: str, sections: Sequence[Table | tuple[str, Mapping[str, Scalar]]]) -> RenderableType:
    """What a run ends with: tables, and headings with pairs of a label and a value."""
    parts: list[RenderableType] = [Text(title, style="bold underline")]
    for section in sections:
        parts.append(Text())
        if isinstance(section, tuple):
            heading, pairs = section
            parts += [Text(heading, style="bold"), _pairs_view(pairs)]
        else:
            parts.append(table_view(section))
    return Group(*parts)


def _pairs_view(pairs: Mapping[str, Scalar]) -> RenderableType:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in pairs.items():
        grid.add_row(f"  {label}", Text(format_number(value)))
    return grid
