"""How a stage says how far it has come. The terminal, Dagster and tests each show it in their own way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work being counted."""

    def advance(self, amount: float = 1) -> None: ...


class Progress(Protocol):
    """Where a stage reports to. Implementations must be cheap: they are called inside loops."""

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]: ...

    def note(self, message: str) -> None:
        """One line worth keeping in the log."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Training metrics of one step, forwarded live (Dagster page, MLflow, terminal)."""


class _SilentTask:
    def advance(self, amount: float = 1) -> None:
        return None


class SilentProgress:
    """Reports nowhere."""

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        yield _SilentTask()

    def note(self, message: str) -> None:
        return None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        return None
