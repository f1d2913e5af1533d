"""The tables of a corpus: their Arrow schemas, and how they are written and read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from forge_pipeline.errors import StorageError

FILES = "files.parquet"
DOCUMENTS = "documents.parquet"
QUARANTINE = "quarantine.parquet"
DECISIONS = "decisions.parquet"
MEMBERSHIP = "membership.parquet"
CATALOG = "catalog.parquet"


def schema_of(**types: pa.DataType) -> pa.Schema:
    """The schema with these columns, in this order."""
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


LANDING_SCHEMA = schema_of(
    source=pa.string(),
    path=pa.string(),
    location=pa.string(),
    bytes=pa.int64(),
    sha256=pa.string(),
    modified_ns=pa.int64(),
    licence=pa.string(),
    owner=pa.string(),
    purpose=pa.string(),
    derived_from=pa.string(),
)
DOCUMENT_SCHEMA = schema_of(
    doc_id=pa.string(),
    source=pa.string(),
    path=pa.string(),
    part=pa.string(),
    file_sha256=pa.string(),
    format=pa.string(),
    language_hint=pa.string(),
    licence=pa.string(),
    owner=pa.string(),
    purpose=pa.string(),
    title=pa.string(),
    text=pa.string(),
    bytes=pa.int64(),
    split_group=pa.string(),
)
QUARANTINE_SCHEMA = schema_of(
    source=pa.string(),
    path=pa.string(),
    file_sha256=pa.string(),
    format=pa.string(),
    bytes=pa.int64(),
    reason=pa.string(),
)
CURATED_SCHEMA = pa.schema(
    [*DOCUMENT_SCHEMA, pa.field("language", pa.string()), pa.field("language_confidence", pa.float32())]
)
DECISION_SCHEMA = schema_of(
    doc_id=pa.string(),
    path=pa.string(),
    step=pa.string(),
    rule=pa.string(),
    value=pa.float64(),
    threshold=pa.float64(),
    action=pa.string(),
    detail=pa.string(),
)
MEMBERSHIP_SCHEMA = schema_of(
    doc_id=pa.string(),
    path=pa.string(),
    cluster_id=pa.string(),
    kept=pa.bool_(),
    kind=pa.string(),
    matched_doc_id=pa.string(),
    similarity=pa.float32(),
)
TRAINING_SCHEMA = pa.schema([*CURATED_SCHEMA, pa.field("split", pa.string()), pa.field("cluster_id", pa.string())])
CATALOG_SCHEMA = schema_of(
    entry_id=pa.string(),
    name=pa.string(),
    kind=pa.string(),
    container=pa.string(),
    signature=pa.string(),
    returns=pa.string(),
    summary=pa.string(),
    doc_id=pa.string(),
    split=pa.string(),
    source=pa.string(),
    start=pa.int64(),
    end=pa.int64(),
)
# Row groups are closed by these alone, so that the same rows give the same bytes.
GROUP_ROWS = 8192
GROUP_CHARACTERS = 32_000_000


class RowWriter:
    """Writes dicts as a Parquet table of one schema, a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []
        self._characters = 0
        self.written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        self._characters += len(row.get("text", ""))
        self.written += 1
        if len(self._rows) >= GROUP_ROWS or self._characters >= GROUP_CHARACTERS:
            self._flush()

    def write_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self.write(row)

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._characters = [], 0


def write_table(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write ``rows`` and return how many there were."""
    with RowWriter(path, schema) as writer:
        writer.write_all(rows)
    return writer.written


def read_table(folder: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of a sealed artifact. Raises StorageError, naming the file, if it is not there."""
    path = folder / name
    if not path.is_file():
        raise StorageError(f"there is no table {name!r}", where=str(path), fix="run the stage that writes it again")
    return pq.read_table(path, columns=list(columns) if columns is not None else None)


def column(table: pa.Table, name: str) -> list[Any]:
    """The values of one column."""
    return table[name].to_pylist()


def iterate_rows(folder: Path, name: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a table as dicts, in order, a few thousand in memory at a time."""
    with pq.ParquetFile(folder / name) as file:
        for batch in file.iter_batches(1024, columns=list(columns) if columns is not None else None):
            yield from batch.to_pylist()


def decision(
    document: Mapping[str, Any],
    step: str,
    rule: str,
    action: str,
    *,
    value: float | None = None,
    threshold: float | None = None,
    detail: str = "",
) -> dict[str, Any]:
    """One decision row about a document."""
    return {
        "doc_id": document["doc_id"],
        "path": document["path"],
        "step": step,
        "rule": rule,
        "value": value,
        "threshold": threshold,
        "action": action,
        "detail": detail,
    }
