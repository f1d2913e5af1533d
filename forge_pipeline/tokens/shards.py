"""The token shards stage, and reading shards back by document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Table
from forge_pipeline.tokens.documents import Columns, document_batches, total_bytes
from forge_pipeline.tokens.encoding import DocumentEncoder, EncodedDocuments, drawn
from forge_pipeline.tokens.settings import ShardSettings
from forge_pipeline.tokens.tokenizer import TOKENIZER_FOLDER

CODE_VERSION = "1"
INDEX = "index.parquet"
HEADER = "header.json"
SPLITS = ("train", "validation", "test")
# The largest vocabulary whose ids are stored in two bytes.
UINT16_VOCABULARY = 65_535
_INDEX_FIELDS: list[tuple[str, pa.DataType]] = [
    ("doc_id", pa.string()),
    ("split", pa.string()),
    ("source", pa.string()),
    ("format", pa.string()),
    ("language", pa.string()),
    ("shard", pa.int32()),
    ("offset", pa.int64()),
    ("length", pa.int64()),
    ("bytes", pa.int64()),
]
INDEX_SCHEMA = pa.schema(_INDEX_FIELDS)
COPIED_COLUMNS = ("doc_id", "split", "source", "format", "language", "bytes")
_ROWS_SHOWN = 30


def shard_name(number: int) -> str:
    return f"shard-{number:05}.bin"


def token_type(vocabulary_size: int) -> str:
    """NumPy's name of the stored type, always little-endian."""
    return "<u4" if vocabulary_size > UINT16_VOCABULARY else "<u2"


def write_shards(settings: ShardSettings, training: Path, tokenizer: Path, output: Path, progress: Progress) -> Outcome:
    """Encode every document of one batch, each followed by the end-of-document token.

    ``training`` and ``tokenizer`` are folders of those stages. Fills ``output`` with `shard-*.bin`, `index.parquet`
    (rows in the order of the documents and of the tokens) and `header.json`. Raises StorageError if the fast and
    the reference encoder disagree.
    """
    encoder = DocumentEncoder(tokenizer / TOKENIZER_FOLDER)
    available = total_bytes([training])
    writer = _ShardWriter(output, token_type(encoder.vocabulary_size), settings.shard_tokens)
    verified = 0
    with (
        pq.ParquetWriter(output / INDEX, INDEX_SCHEMA, compression="zstd") as index,
        progress.task("encoding", available, "bytes") as task,
    ):
        for rows in document_batches(training, [*COPIED_COLUMNS, "text"]):
            encoded = encoder.encode(rows["text"])
            sample = drawn(rows["doc_id"], settings.verified_bytes / max(available, 1))
            # However small the sample: never nothing.
            sample[:1] |= verified == 0 and settings.verified_bytes > 0
            encoder.verify(rows["text"], encoded, np.flatnonzero(sample).tolist())
            verified += int(sample.sum())
            closed = append_end_tokens(encoded, encoder.end_token_id)
            index.write_table(_index_rows(rows, writer.write(closed), closed.lengths.tolist()))
            task.advance(sum(rows["bytes"]))
    writer.close()
    header = {
        "dtype": "uint32" if writer.dtype == "<u4" else "uint16",
        "vocabulary_size": encoder.vocabulary_size,
        "end_token_id": encoder.end_token_id,
        "tokenizer_sha256": encoder.tokenizer_sha256,
    }
    (output / HEADER).write_text(json.dumps(header, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return _outcome(pq.read_table(output / INDEX), writer.shards, verified)


def append_end_tokens(encoded: EncodedDocuments, end_token_id: int) -> EncodedDocuments:
    """The same documents, each one token longer."""
    documents = len(encoded.offsets) - 1
    offsets = encoded.offsets + np.arange(documents + 1)
    ids = np.full(offsets[-1], end_token_id, dtype=np.uint32)
    is_text = np.ones(len(ids), dtype=np.bool_)
    is_text[offsets[1:] - 1] = False
    ids[is_text] = encoded.ids
    return EncodedDocuments(ids, offsets)


class _ShardWriter:
    def __init__(self, output: Path, dtype: str, shard_tokens: int) -> None:
        self._output = output
        self.dtype = dtype
        self._capacity = shard_tokens
        self._file: BinaryIO | None = None
        self._used = 0
        self.shards = 0

    def write(self, documents: EncodedDocuments) -> list[tuple[int, int]]:
        """Append whole documents; (shard, offset in tokens) of each."""
        places = []
        ids = documents.ids.astype(self.dtype)
        bounds = documents.offsets.tolist()
        for start, stop in pairwise(bounds):
            if self._file is None or (self._used and self._used + stop - start > self._capacity):
                self.close()
                self._file = (self._output / shard_name(self.shards)).open("wb")
                self.shards += 1
                self._used = 0
            places.append((self.shards - 1, self._used))
            self._file.write(ids[start:stop].tobytes())
            self._used += stop - start
        return places

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _index_rows(rows: Columns, places: list[tuple[int, int]], lengths: list[int]) -> pa.Table:
    made = {"shard": [shard for shard, _ in places], "offset": [offset for _, offset in places], "length": lengths}
    columns: Columns = {name: rows[name] for name in COPIED_COLUMNS} | made
    return pa.table({name: columns[name] for name in INDEX_SCHEMA.names}, schema=INDEX_SCHEMA)


def _outcome(index: pa.Table, shards: int, verified: int) -> Outcome:
    by_split = {split: index.filter(pc.equal(index["split"], pa.scalar(split))) for split in SPLITS}
    tokens = pc.sum(index["length"]).as_py() or 0
    text_bytes = pc.sum(index["bytes"]).as_py() or 0
    text_tokens = tokens - index.num_rows
    groups = index.group_by(["split", "format"]).aggregate([("length", "sum"), ("bytes", "sum"), ("doc_id", "count")])
    rows = sorted(groups.to_pylist(), key=lambda row: (-row["length_sum"], row["split"] or "", row["format"] or ""))
    lengths = index["length"].to_numpy()
    octaves = np.bincount(np.log2(lengths).astype(np.int64)) if len(lengths) else np.zeros(0, np.int64)
    return Outcome(
        counts={
            "documents": index.num_rows,
            "tokens": tokens,
            **{f"tokens_{split}": pc.sum(rows["length"]).as_py() or 0 for split, rows in by_split.items()},
            **{f"documents_{split}": rows.num_rows for split, rows in by_split.items()},
            "bytes": text_bytes,
            "bytes_per_token": round(text_bytes / text_tokens, 4) if text_tokens else None,
            "shards": shards,
        },
        checks=[
            Check(
                "ids_verified",
                verified > 0 or index.num_rows == 0,
                "every document decodes to its own bytes, and a sample (counted here) has the ids of the reference",
                verified,
            ),
        ],
        tables=[
            Table.of(
                "Tokens by split and format",
                [
                    {
                        "split": row["split"],
                        "format": row["format"],
                        "documents": row["doc_id_count"],
                        "tokens": row["length_sum"],
                        "bytes": row["bytes_sum"],
                    }
                    for row in rows[:_ROWS_SHOWN]
                ],
            )
        ],
        plots=[
            Plot(
                "Length of documents",
                "histogram",
                "tokens",
                "documents",
                {"documents": ([2**power for power in range(len(octaves))], octaves.astype(float).tolist())},
            )
        ],
    )


@dataclass(frozen=True)
class DocumentSet:
    """Some of a reader's documents, numbered 0, 1, ... in the order of batches and rows.

    ``doc_ids`` string (n,); ``lengths`` int64 (n,) in tokens with the end token; ``text_bytes`` int64 (n,);
    ``numbers`` int64 (n,): which of the reader's documents they are.
    """

    reader: ShardReader
    doc_ids: pa.ChunkedArray
    lengths: NDArray[np.int64]
    text_bytes: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Tokens ``start`` to ``stop`` of document ``document`` of this set, as they are stored."""
        return self.reader.tokens(int(self.numbers[document]), start, stop)


class ShardReader:
    """The token shards of several batches, mapped into memory when they are first read.

    Opening reads the indexes alone: what depends only on lengths (order, exposures) needs no shard. Raises
    StorageError for a part that is damaged or was made with another tokenizer.
    """

    def __init__(self, parts: Sequence[Path]) -> None:
        if not parts:
            raise StorageError("no token shards were given", fix="run the token_shards stage first")
        self.parts = tuple(parts)
        self.header = _read_header(self.parts[0])
        for part in self.parts[1:]:
            header = _read_header(part)
            if header != self.header:
                raise StorageError(
                    f"its header {header} differs from the first part's {self.header}",
                    where=str(part / HEADER),
                    fix="run the token_shards stage again for all batches with one tokenizer",
                )
        tables = [pq.read_table(part / INDEX, schema=INDEX_SCHEMA) for part in self.parts]
        self.first_of_part = np.cumsum([0, *(table.num_rows for table in tables)])
        self.index = pa.concat_tables(tables)
        self._shard = self.index["shard"].to_numpy()
        self._offset = self.index["offset"].to_numpy()
        self._length = self.index["length"].to_numpy()
        self._maps: dict[tuple[int, int], NDArray[Any]] = {}

    @property
    def vocabulary_size(self) -> int:
        return int(self.header["vocabulary_size"])

    @property
    def end_token_id(self) -> int:
        return int(self.header["end_token_id"])

    def documents(self, split: str | None = None) -> DocumentSet:
        """All documents, or those of one split."""
        if split is None:
            numbers = np.arange(self.index.num_rows)
        else:
            numbers = np.flatnonzero(pc.equal(self.index["split"], pa.scalar(split)).to_numpy())
        rows = self.index.take(numbers)
        return DocumentSet(self, rows["doc_id"], rows["length"].to_numpy(), rows["bytes"].to_numpy(), numbers)

    def document(self, part: int, row: int) -> NDArray[Any]:
        """All tokens of the document in ``row`` of the index of ``part``."""
        return self.tokens(int(self.first_of_part[part]) + row)

    def tokens(self, number: int, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Tokens ``start`` to ``stop`` (its length if None) of document ``number``, counted over all parts."""
        length = int(self._length[number])
        stop = length if stop is None else stop
        if not 0 <= start <= stop <= length:
            raise IndexError(f"tokens {start} to {stop} of a document of {length}")
        part = int(np.searchsorted(self.first_of_part, number, side="right")) - 1
        offset = int(self._offset[number])
        return self._map(part, int(self._shard[number]))[offset + start : offset + stop]

    def _map(self, part: int, shard: int) -> NDArray[Any]:
        if (part, shard) not in self._maps:
            path = self.parts[part] / shard_name(shard)
            rows = slice(int(self.first_of_part[part]), int(self.first_of_part[part + 1]))
            expected = int(self._length[rows][self._shard[rows] == shard].sum())
            dtype = np.dtype(token_type(self.vocabulary_size))
            actual = path.stat().st_size if path.is_file() else -1
            if actual != expected * dtype.itemsize:
                raise StorageError(
                    f"a shard of {expected} tokens should have {expected * dtype.itemsize} bytes, not {actual}",
                    where=str(path),
                    fix="run the token_shards stage again",
                )
            self._maps[part, shard] = np.memmap(path, dtype=dtype, mode="r")
        return self._maps[part, shard]


def _read_header(part: Path) -> dict[str, Any]:
    path = part / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if set(header) != {"dtype", "vocabulary_size", "end_token_id", "tokenizer_sha256"}:
            raise StorageError(f"the header of token shards holds {sorted(header)}", where=str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise StorageError(
            f"cannot read the header of token shards: {error}", where=str(path), fix="run the token_shards stage again"
        ) from error
    return header
