"""Where a stage's progress goes when Dagster runs it: the run's log, MLflow, and a terminal if there is one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, Protocol

from forge_pipeline.release.tracking import RunTracker
from forge_pipeline.reporting import Progress, SilentProgress, Task

LOG_EVERY_SECONDS = 10.0


class Display(Progress, Protocol):
    """A progress that also shows stages as they begin and end."""

    def stage_started(self, name: str) -> None: ...

    def stage_finished(
        self, name: str, status: Literal["done", "reused", "failed"], detail: str = "", seconds: float | None = None
    ) -> None: ...


class _NoDisplay(SilentProgress):
    def stage_started(self, name: str) -> None:
        return None

    def stage_finished(
        self, name: str, status: Literal["done", "reused", "failed"], detail: str = "", seconds: float | None = None
    ) -> None:
        return None


_display: Display = _NoDisplay()


def display() -> Display:
    return _display


@contextmanager
def shown_on(display: Display) -> Iterator[None]:
    """Within this block, what Dagster runs in this process is shown on ``display`` too."""
    global _display
    before, _display = _display, display
    try:
        yield
    finally:
        _display = before


class _LoggedTask:
    """Counts, and writes how far it has come into the run's log every few seconds."""

    def __init__(self, log: logging.Logger, shown: Task, description: str, total: float | None, unit: str) -> None:
        self.log, self.shown, self.description, self.total, self.unit = log, shown, description, total, unit
        self.done = 0.0
        self.began = self.logged = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self.shown.advance(amount)
        self.done += amount
        now = time.monotonic()
        if now - self.logged >= LOG_EVERY_SECONDS:
            self.logged = now
            self.log.info(self._line(now))

    def _line(self, now: float) -> str:
        if not self.total:
            return f"{self.description}: {self.done:,.0f} {self.unit}"
        left = (now - self.began) / self.done * (self.total - self.done)
        return f"{self.description}: {self.done:,.0f} of {self.total:,.0f} {self.unit}, about {left:.0f} s left"


class DagsterProgress:
    """Progress of one asset. ``tracker`` gets the training metrics as they come."""

    def __init__(self, log: logging.Logger, tracker: RunTracker | None) -> None:
        self.log = log
        self.tracker = tracker
        self._logged = 0.0

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        with _display.task(description, total, unit) as shown:
            yield _LoggedTask(self.log, shown, description, total, unit)

    def note(self, message: str) -> None:
        _display.note(message)
        self.log.info(message)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        _display.metrics(step, values)
        if self.tracker is not None:
            self.tracker.log(step, values)
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY_SECONDS:
            self._logged = now
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.log.info(f"step {step}: {shown}")
