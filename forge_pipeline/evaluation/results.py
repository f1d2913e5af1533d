"""The table that holds the results of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from forge_pipeline.corpus.tables import read_table, write_table
from forge_pipeline.reporting.results import Result

RESULTS = "results.parquet"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("n", pa.int64()),
    ("unit", pa.string()),
    ("detail", pa.string()),
]
RESULT_SCHEMA = pa.schema(_COLUMNS)


def write_results(output: Path, results: Sequence[Result]) -> None:
    write_table(output / RESULTS, RESULT_SCHEMA, (asdict(result) for result in results))


def read_results(folder: Path) -> list[Result]:
    """The figures of a sealed evaluation."""
    return [Result(**row) for row in read_table(folder, RESULTS).to_pylist()]
