"""The result of a stage as people read it. Sealed beside the stage's files as `report.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Scalar = int | float | str | bool | None


@dataclass(frozen=True)
class Table:
    """A small table for people: at most a few dozen rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]

    @classmethod
    def of(cls, title: str, rows: Sequence[Mapping[str, Scalar]]) -> Table:
        """A table from rows that all have the same keys, in the order of the first row's."""
        columns = tuple(rows[0]) if rows else ()
        return cls(title, columns, tuple(tuple(row[column] for column in columns) for row in rows))


@dataclass(frozen=True)
class Plot:
    """One chart. ``series`` maps a name to its x and y values; for "bar" the x values are labels, and a
    "histogram" is given already counted, as bars at the left edges of its bins."""

    title: str
    kind: Literal["line", "bar", "histogram"]
    x_label: str
    y_label: str
    series: dict[str, tuple[list[Any], list[float]]]


@dataclass(frozen=True)
class Check:
    """A statement about a stage's output that held or did not, with the figures it was judged by."""

    name: str
    passed: bool
    description: str
    value: float | None = None
    threshold: float | None = None


@dataclass
class Outcome:
    """What a stage's library function returns. Its files are already in the output folder.

    ``counts`` holds the headline figures (documents, tokens, losses, accuracies), under stable names that the
    closing table, the release gate and the audit page read.
    """

    counts: dict[str, Scalar] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        return cls(
            counts=dict(data["counts"]),
            checks=[Check(**check) for check in data["checks"]],
            tables=[
                Table(table["title"], tuple(table["columns"]), tuple(tuple(row) for row in table["rows"]))
                for table in data["tables"]
            ],
            plots=[
                Plot(**{**plot, "series": {name: (xy[0], xy[1]) for name, xy in plot["series"].items()}})
                for plot in data["plots"]
            ],
        )
