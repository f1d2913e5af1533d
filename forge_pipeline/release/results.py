"""Evaluation results as the release reads them: each figure with the stage at which it was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from forge_pipeline.errors import StorageError
from forge_pipeline.evaluation.results import RESULT_SCHEMA, RESULTS
from forge_pipeline.reporting import Scalar

EVALUATIONS_FILE = "evaluations.parquet"
EVALUATIONS_SCHEMA = pa.schema([pa.field("stage", pa.string()), *RESULT_SCHEMA])


@dataclass(frozen=True)
class Result:
    """One measured metric with its 95% interval ``low`` to ``high`` (NaN if none was given) over ``n`` of ``unit``.

    A headline figure has an empty ``detail``; a figure for a part names the part there.
    """

    stage: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    detail: str

    @property
    def is_headline(self) -> bool:
        return not self.detail

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def row(self) -> dict[str, Scalar]:
        """For a table that people read."""
        return {
            "stage": self.stage,
            "metric": self.metric,
            "value": round(self.value, 4) if math.isfinite(self.value) else None,
            "interval": interval_text(self.low, self.high),
            "n": self.n,
            "counted in": self.unit,
        }


def interval_text(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}" if math.isfinite(low) and math.isfinite(high) else "not given"


def read_results(evaluation: Path, stage: str) -> list[Result]:
    """The rows of an evaluation artifact's `results.parquet`, in the stored order, as measured at ``stage``.

    Raises StorageError if the table is missing, lacks a column, or holds a figure twice or without a value.
    """
    path = evaluation / RESULTS
    try:
        table = pq.read_table(path, columns=RESULT_SCHEMA.names)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read the evaluation of {stage}: {error}", where=str(path), fix="run the evaluation again"
        ) from error
    missing = [name for name in RESULT_SCHEMA.names if name not in table.column_names]
    if missing:
        raise StorageError(f"the evaluation of {stage} has no column {missing[0]!r}", where=str(path))
    results: dict[tuple[str, str], Result] = {}
    for row in table.to_pylist():
        result = _result(row | {"stage": stage, "detail": row["detail"] or ""})
        if (result.metric, result.detail) in results or row["metric"] is None or row["value"] is None:
            raise StorageError(
                f"the metric {row['metric']!r} of {stage} is there twice or has no value",
                where=str(path),
                fix="run the evaluation again",
            )
        results[(result.metric, result.detail)] = result
    return list(results.values())


def write_evaluations(results: list[Result], path: Path) -> None:
    columns = {name: [getattr(result, name) for result in results] for name in EVALUATIONS_SCHEMA.names}
    pq.write_table(pa.table(columns, schema=EVALUATIONS_SCHEMA), path, compression="zstd")


def read_evaluations(decision: Path) -> list[Result]:
    """Every result of every stage, as the release decision sealed them."""
    path = decision / EVALUATIONS_FILE
    try:
        rows = pq.read_table(path, schema=EVALUATIONS_SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read the evaluations of a release: {error}", where=str(path), fix="run release_decision again"
        ) from error
    return [_result(row) for row in rows]


def _result(row: dict[str, object]) -> Result:
    unknown = {side: math.nan for side in ("low", "high") if row[side] is None}
    return Result(**{**row, **unknown, "n": row["n"] or 0, "unit": row["unit"] or ""})  # type: ignore[arg-type]
