"""Reading the documents of a training_documents artifact, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from forge_pipeline.errors import StorageError

DOCUMENTS = "documents.parquet"
# Enough for the encoder to be busy, little enough to fit in memory when every document is large.
_ROWS_AT_ONCE = 512
_CHARACTERS_AT_ONCE = 16_000_000

Columns = dict[str, list[Any]]


def document_batches(training: Path, columns: Sequence[str]) -> Iterator[Columns]:
    """Some columns, "text" among them, of all documents in order. Raises StorageError if there is no table."""
    with pq.ParquetFile(_table(training)) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            rows: Columns = batch.to_pydict()
            for start, stop in _small_ranges(rows["text"]):
                yield {name: values[start:stop] for name, values in rows.items()}


def total_bytes(training: Sequence[Path], split: str | None = None) -> int:
    """Bytes of text in all documents of ``training``, or in those of one split."""
    total = 0
    for part in training:
        table: Columns = pq.read_table(_table(part), columns=["split", "bytes"]).to_pydict()
        total += sum(size for size, found in zip(table["bytes"], table["split"], strict=True) if split in (None, found))
    return total


def choose(rows: Columns, wanted: Sequence[bool]) -> Columns:
    """The rows for which ``wanted`` is true."""
    return {name: [value for value, keep in zip(values, wanted, strict=True) if keep] for name, values in rows.items()}


def _table(training: Path) -> Path:
    path = training / DOCUMENTS
    if not path.is_file():
        raise StorageError("there is no table of documents", where=str(path), fix="run the stage before it again")
    return path


def _small_ranges(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = characters = 0
    for position, text in enumerate(texts):
        if characters and characters + len(text) > _CHARACTERS_AT_ONCE:
            yield start, position
            start, characters = position, 0
        characters += len(text)
    if start < len(texts):
        yield start, len(texts)
