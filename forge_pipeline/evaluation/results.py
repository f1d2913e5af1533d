"""One figure of an evaluation, and the table that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from forge_pipeline.corpus.tables import read_table, write_table
from forge_pipeline.reporting.intervals import wilson

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


@dataclass(frozen=True)
class Result:
    """``low`` and ``high`` bound the 95% interval; ``n`` counts ``unit`` (documents, questions, pairs, episodes).

    Headline figures have an empty ``detail``. A figure for a part (a kind of question, a format of documents)
    has the same metric and names the part in ``detail``.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    detail: str = ""

    @classmethod
    def proportion(cls, metric: str, outcomes: Sequence[bool], unit: str, detail: str = "") -> Result:
        """The share of true outcomes with its Wilson interval."""
        low, high = wilson(sum(outcomes), len(outcomes))
        value = sum(outcomes) / len(outcomes) if outcomes else 0.0
        return cls(metric, value, low, high, len(outcomes), unit, detail)


def write_results(output: Path, results: Sequence[Result]) -> None:
    write_table(output / RESULTS, RESULT_SCHEMA, (asdict(result) for result in results))


def read_results(folder: Path) -> list[Result]:
    """The figures of a sealed evaluation."""
    return [Result(**row) for row in read_table(folder, RESULTS).to_pylist()]
