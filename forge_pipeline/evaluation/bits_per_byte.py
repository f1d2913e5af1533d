"""How many bits a model needs for each byte of held-out documents, beside what compressors need for the same.

The figure is exact: every token of every scored document is predicted once, the end token included, as if the
document were to be transmitted. It compares models with different tokenizers.
"""

from __future__ import annotations

import lzma
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forge_pipeline.corpus.tables import DOCUMENTS, read_table, write_table
from forge_pipeline.errors import StorageError
from forge_pipeline.evaluation.settings import BitsPerByteSettings
from forge_pipeline.reporting import Task
from forge_pipeline.reporting.intervals import bootstrap_ratio
from forge_pipeline.reporting.results import Result
from forge_pipeline.tokens.shards import ShardReader

if TYPE_CHECKING:
    from forge_pipeline.models.mistral import Mistral

BITS_PER_BYTE = "bits_per_byte.parquet"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("doc_id", pa.string()),
    ("source", pa.string()),
    ("path", pa.string()),
    ("format", pa.string()),
    ("tokens", pa.int64()),
    ("bytes", pa.int64()),
    ("bits", pa.float64()),
    ("zlib_bits", pa.float64()),
]
DOCUMENT_SCORE_SCHEMA = pa.schema(_COLUMNS)
# Windows scored between two signs of progress.
_WINDOWS = 256


@dataclass(frozen=True)
class HeldOutDocument:
    """``token_ids`` int64 (n,) end with the end token; ``text`` is what they encode."""

    doc_id: str
    source: str
    path: str
    part: str
    format: str
    text: bytes
    token_ids: np.ndarray

    @property
    def place(self) -> tuple[str, str, str, str]:
        return self.source, self.path, self.part, self.doc_id


def read_held_out(token_shards: Sequence[Path], training: Sequence[Path], split: str) -> list[HeldOutDocument]:
    """All documents of ``split``, ordered by id, from the batches' shards and texts.

    Raises StorageError if a shard names a document whose text is in no batch.
    """
    texts: dict[str, dict[str, Any]] = {}
    for folder in training:
        table = read_table(folder, DOCUMENTS, ["doc_id", "source", "path", "part", "format", "text", "split"])
        rows = table.filter(pc.field("split") == split).to_pylist()
        texts.update((row["doc_id"], row) for row in rows)
    shards = ShardReader(token_shards).documents(split)
    documents = []
    for number, doc_id in enumerate(map(str, shards.doc_ids.to_pylist())):
        known = texts.get(doc_id)
        if known is None:
            raise StorageError(
                f"the text of document {doc_id} is in none of {len(training)} batches",
                where=", ".join(str(folder) for folder in training),
                fix="evaluate with the training documents that the shards were made from",
            )
        documents.append(
            HeldOutDocument(
                doc_id,
                known["source"],
                known["path"],
                known["part"],
                known["format"],
                known["text"].encode(),
                shards.tokens(number).astype(np.int64),
            )
        )
    return sorted(documents, key=lambda document: document.doc_id)


def choose(documents: Sequence[HeldOutDocument], maximum_tokens: int | None) -> list[HeldOutDocument]:
    """Whole documents, in the order of their ids, while they fit ``maximum_tokens``; at least one if there is any.

    The ids are digests: the choice is random, and the same for every model.
    """
    if maximum_tokens is None:
        return list(documents)
    chosen, total = [], 0
    for document in documents:
        if total + len(document.token_ids) <= maximum_tokens:
            chosen.append(document)
            total += len(document.token_ids)
    return chosen or list(documents[:1])


def document_nats(
    model: Mistral,
    documents: Sequence[HeldOutDocument],
    end_token_id: int,
    window: int,
    overlap: int,
    task: Task | None = None,
) -> list[float]:
    """Nats of each document: minus the sum of the log-probabilities of all its tokens.

    The model reads ``window`` tokens at once. A document starts after an end token, and each further window
    starts with ``overlap`` tokens of the one before, which are context and not counted again.
    """
    from forge_pipeline.inference.scoring import sequence_log_probs

    windows: list[tuple[int, list[int], list[bool]]] = []
    for owner, document in enumerate(documents):
        full = [end_token_id, *document.token_ids.tolist()]
        start, scored = 0, 1
        while scored < len(full):
            piece = full[start : start + window + 1]
            windows.append((owner, piece, [start + place >= scored for place in range(len(piece))]))
            scored = start + len(piece)
            start = scored - 1 - overlap
    nats = [0.0] * len(documents)
    # Long windows first: nearly all are full, and equal lengths waste no padding.
    windows.sort(key=lambda item: -len(item[1]))
    for first in range(0, len(windows), _WINDOWS):
        part = windows[first : first + _WINDOWS]
        values = sequence_log_probs(model, [ids for _, ids, _ in part], [mask for _, _, mask in part])
        for (owner, _, mask), value in zip(part, values, strict=True):
            nats[owner] -= value
            if task is not None:
                task.advance(sum(mask))
    return nats


def score_documents(
    settings: BitsPerByteSettings,
    model: Mistral,
    documents: Sequence[HeldOutDocument],
    end_token_id: int,
    task: Task | None = None,
) -> list[dict[str, Any]]:
    """One row of DOCUMENT_SCORE_SCHEMA for each document."""
    window = settings.window_tokens or model.config.context_length
    overlap = min(settings.overlap_tokens, window - 1)
    nats = document_nats(model, documents, end_token_id, window, overlap, task)
    return [
        {
            "doc_id": document.doc_id,
            "source": document.source,
            "path": document.path + document.part,
            "format": document.format,
            "tokens": len(document.token_ids),
            "bytes": len(document.text),
            "bits": value / math.log(2),
            "zlib_bits": 8.0 * len(zlib.compress(document.text, 9)),
        }
        for document, value in zip(documents, nats, strict=True)
    ]


def evaluate_bits_per_byte(
    settings: BitsPerByteSettings,
    model: Mistral,
    token_shards: Sequence[Path],
    training: Sequence[Path],
    output: Path,
    *,
    seed: int,
    resamples: int,
    task: Task | None = None,
) -> list[Result]:
    """Score the held-out documents, write `bits_per_byte.parquet` (one row a document) and return the figures.

    The intervals resample documents. ``xz`` compresses all documents together, in the order of their paths, and
    has no interval. No figure if the split is empty.
    """
    everything = read_held_out(token_shards, training, settings.split)
    documents = choose(everything, settings.maximum_tokens)
    rows = score_documents(settings, model, documents, ShardReader(token_shards).end_token_id, task)
    write_table(output / BITS_PER_BYTE, DOCUMENT_SCORE_SCHEMA, rows)
    if not rows:
        return []
    results = [
        _ratio("bits_per_byte", rows, "bits", "", seed, resamples),
        _ratio("zlib_bits_per_byte", rows, "zlib_bits", "", seed, resamples),
        _xz("xz_bits_per_byte", documents, ""),
    ]
    for column in ("format", "source"):
        for value in sorted({row[column] for row in rows}):
            part = [row for row in rows if row[column] == value]
            results.append(_ratio("bits_per_byte", part, "bits", f"{column} {value}", seed, resamples))
    if len(documents) < len(everything):
        detail = f"all {len(everything)} documents of the split"
        whole = [
            {"zlib_bits": 8.0 * len(zlib.compress(document.text, 9)), "bytes": len(document.text)}
            for document in everything
        ]
        results.append(_ratio("zlib_bits_per_byte", whole, "zlib_bits", detail, seed, resamples))
        results.append(_xz("xz_bits_per_byte", everything, detail))
    return results


def _ratio(metric: str, rows: Sequence[dict[str, Any]], column: str, detail: str, seed: int, resamples: int) -> Result:
    bits, sizes = [row[column] for row in rows], [row["bytes"] for row in rows]
    low, high = bootstrap_ratio(bits, sizes, seed, resamples)
    return Result(metric, math.fsum(bits) / sum(sizes), low, high, len(rows), "documents", detail)


def _xz(metric: str, documents: Sequence[HeldOutDocument], detail: str) -> Result:
    joined = b"".join(document.text for document in sorted(documents, key=lambda document: document.place))
    value = 8 * len(lzma.compress(joined, preset=9 | lzma.PRESET_EXTREME)) / len(joined)
    return Result(metric, value, value, value, len(documents), "documents", detail)
