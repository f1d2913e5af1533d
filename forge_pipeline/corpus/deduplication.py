"""Each text once: exact duplicates by digest, near-duplicates by MinHash. The first seen wins.

A document is compared with the documents kept before it, in this batch and in all earlier ones. So the outcome is
a fold over the documents in their order: however they are cut into batches, the same ones are kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.minhash import band_keys, in_collision, permutations
from forge_pipeline.corpus.settings import DeduplicationSettings
from forge_pipeline.corpus.summaries import ROWS, length_histogram, share_histogram
from forge_pipeline.corpus.workers import Failure, Job, run_job
from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import Outcome, Progress, Table

CODE_VERSION = "1"
STEP = "deduplication"
# The index of a part: digests and signatures of its kept documents, row by row.
DIGESTS = "digests.parquet"
SIGNATURES = "signatures.npy"
_DIGEST_SCHEMA = tables.schema_of(
    doc_id=pa.string(),
    digest=pa.string(),
)
_SECONDS_PER_DOCUMENT = 120.0


@dataclass(frozen=True)
class Index:
    """Documents with their digests and signatures ((documents, permutations) uint32)."""

    doc_ids: list[str]
    digests: list[str]
    signatures: NDArray[np.uint32]


@dataclass(frozen=True)
class Match:
    """Which earlier document a document repeats: ``kind`` is "exact" or "near"."""

    kind: str
    row: int
    similarity: float


def deduplicate(
    settings: DeduplicationSettings,
    curated: Path,
    earlier: Sequence[Path],
    output: Path,
    progress: Progress,
    *,
    workers: int | None = None,
) -> Outcome:
    """Keep the documents of a batch that repeat none before them.

    ``curated`` holds the batch's documents, ``earlier`` the parts that this function wrote for the batches before,
    in their order. Writes `membership.parquet` (a row for every document), `documents.parquet` (kept ones),
    `decisions.parquet`, and the index that later batches are matched against. Raises StorageError if an earlier
    part was made with another number of permutations.
    """
    rows = tables.read_table(curated, tables.DOCUMENTS, ["doc_id", "path", "bytes"]).to_pylist()
    before = _load_index(earlier, settings.permutations)
    batch = _sign(settings, curated, len(rows), progress, workers)
    first = len(before.doc_ids)
    index = Index(
        before.doc_ids + [row["doc_id"] for row in rows],
        before.digests + batch.digests,
        np.concatenate([before.signatures, batch.signatures]),
    )
    matches = find_matches(index, first, settings.bands, settings.threshold)
    members = [_membership(row, matches.get(first + place), index) for place, row in enumerate(rows)]
    tables.write_table(output / tables.MEMBERSHIP, tables.MEMBERSHIP_SCHEMA, members)
    kept = np.array([member["kept"] for member in members], dtype=bool)
    lengths = _write_documents(curated, kept, output)
    _write_decisions(rows, members, settings.threshold, output)
    _write_index(index, first, kept, output)
    return _outcome(rows, members, lengths, len(before.doc_ids))


def find_matches(index: Index, first: int, bands: int, threshold: float) -> dict[int, Match]:
    """For each document from row ``first`` on that repeats a kept one before it, the most similar such document.

    Rows before ``first`` are kept documents of earlier batches. Similarity is estimated from the signatures: the
    share of permutations in which two agree (standard error at 0.8 with 112 permutations: 0.038).
    """
    keys = band_keys(index.signatures, bands)
    # A document that shares no band with any other is compared with none.
    collides = in_collision(keys)
    by_digest: dict[str, int] = {}
    buckets: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    matches: dict[int, Match] = {}
    for row, digest in enumerate(index.digests):
        places = list(enumerate(keys[row].tolist())) if collides[row] else []
        if row >= first:
            match = _match(index, row, by_digest.get(digest), [buckets[place] for place in places], threshold)
            if match is not None:
                matches[row] = match
                continue
        by_digest.setdefault(digest, row)
        for place in places:
            buckets[place].append(row)
    return matches


def _match(
    index: Index, row: int, same: int | None, buckets: Sequence[Sequence[int]], threshold: float
) -> Match | None:
    if same is not None:
        return Match("exact", same, 1.0)
    candidates = sorted({candidate for bucket in buckets for candidate in bucket})
    if not candidates:
        return None
    similarities = (index.signatures[candidates] == index.signatures[row]).mean(axis=1)
    # argmax takes the first of equals: the one seen first.
    best = int(np.argmax(similarities))
    return Match("near", candidates[best], float(similarities[best])) if similarities[best] >= threshold else None


def _load_index(parts: Sequence[Path], width: int) -> Index:
    doc_ids: list[str] = []
    digests: list[str] = []
    signatures = [np.empty((0, width), dtype=np.uint32)]
    for part in parts:
        table = tables.read_table(part, DIGESTS)
        values = np.load(part / SIGNATURES, allow_pickle=False)
        if values.shape != (table.num_rows, width):
            raise StorageError(
                f"the index has signatures of shape {values.shape}, not {(table.num_rows, width)}",
                where=str(part / SIGNATURES),
                fix="bands, rows_per_band and shingles stay the same for all batches of a corpus: undo the change, "
                "or run every batch again",
            )
        doc_ids += tables.column(table, "doc_id")
        digests += tables.column(table, "digest")
        signatures.append(values)
    return Index(doc_ids, digests, np.concatenate(signatures))


def _sign(settings: DeduplicationSettings, curated: Path, count: int, progress: Progress, workers: int | None) -> Index:
    """Digests and signatures of the batch (no document ids: the caller has them)."""
    factors, summands = permutations(settings.permutations, settings.seed)
    job = Job(
        "forge_pipeline.corpus.signer:signer",
        {
            "shingle_words": settings.shingle_words,
            "shingle_characters": settings.shingle_characters,
            "factors": factors.tolist(),
            "summands": summands.tolist(),
        },
        _SECONDS_PER_DOCUMENT,
    )
    signatures = np.empty((count, settings.permutations), dtype=np.uint32)
    digests: list[str] = []
    items = tables.iterate_rows(curated, tables.DOCUMENTS, ["text"])
    with progress.task("compute signatures", count, "documents") as task:
        for place, result in enumerate(run_job(job, items, workers)):
            if isinstance(result, Failure):
                raise StorageError(
                    f"no signature for document {place}: {result.detail}", where=str(curated), fix="run the stage again"
                )
            digests.append(result["digest"])
            signatures[place] = np.frombuffer(bytes.fromhex(result["signature"]), dtype="<u4")
            task.advance()
    return Index([], digests, signatures)


def _membership(row: Mapping[str, Any], match: Match | None, index: Index) -> dict[str, Any]:
    # What is matched was kept, so it is the first of its cluster.
    matched = None if match is None else index.doc_ids[match.row]
    return {
        "doc_id": row["doc_id"],
        "path": row["path"],
        "cluster_id": matched or row["doc_id"],
        "kept": match is None,
        "kind": "unique" if match is None else match.kind,
        "matched_doc_id": matched,
        "similarity": None if match is None else match.similarity,
    }


def _write_documents(curated: Path, kept: NDArray[np.bool_], output: Path) -> list[int]:
    lengths = []
    with tables.RowWriter(output / tables.DOCUMENTS, tables.CURATED_SCHEMA) as writer:
        for keep, row in zip(kept, tables.iterate_rows(curated, tables.DOCUMENTS), strict=True):
            if keep:
                writer.write(row)
                lengths.append(len(row["text"]))
    return lengths


def _write_decisions(
    rows: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]], threshold: float, output: Path
) -> None:
    tables.write_table(
        output / tables.DECISIONS,
        tables.DECISION_SCHEMA,
        (
            tables.decision(
                row,
                STEP,
                member["kind"],
                "drop",
                value=member["similarity"],
                threshold=threshold if member["kind"] == "near" else None,
                detail=f"repeats {member['matched_doc_id']}",
            )
            for row, member in zip(rows, members, strict=True)
            if not member["kept"]
        ),
    )


def _write_index(index: Index, first: int, kept: NDArray[np.bool_], output: Path) -> None:
    places = (np.flatnonzero(kept) + first).tolist()
    tables.write_table(
        output / DIGESTS,
        _DIGEST_SCHEMA,
        ({"doc_id": index.doc_ids[place], "digest": index.digests[place]} for place in places),
    )
    np.save(output / SIGNATURES, index.signatures[places], allow_pickle=False)


def _outcome(
    rows: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]], lengths: list[int], earlier: int
) -> Outcome:
    kinds = Counter(member["kind"] for member in members)
    sizes = Counter(member["cluster_id"] for member in members if not member["kept"])
    similarities = [member["similarity"] for member in members if member["kind"] == "near"]
    paths = {member["doc_id"]: member["path"] for member in members}
    return Outcome(
        counts={
            "documents_in": len(rows),
            "documents_kept": kinds["unique"],
            "documents_dropped": kinds["exact"] + kinds["near"],
            "dropped_exact": kinds["exact"],
            "dropped_near": kinds["near"],
            "clusters": len(sizes),
            "documents_matched_against": earlier,
            "bytes_in": sum(row["bytes"] for row in rows),
            "bytes_kept": sum(row["bytes"] for row, member in zip(rows, members, strict=True) if member["kept"]),
        },
        tables=[
            Table(
                "Largest clusters",
                ("first seen", "repeated by"),
                tuple((paths.get(name, f"{name} (earlier batch)"), count) for name, count in sizes.most_common(ROWS)),
            ),
            Table.of(
                "Near-duplicates (evenly spaced sample)",
                _near_sample([member for member in members if member["kind"] == "near"], paths),
            ),
        ],
        plots=[
            length_histogram("Length of unique documents", lengths),
            share_histogram("Similarity of near-duplicates", "estimated Jaccard similarity", similarities),
        ],
    )


def _near_sample(members: Sequence[Mapping[str, Any]], paths: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "path": member["path"],
            "repeats": paths.get(member["matched_doc_id"], member["matched_doc_id"]),
            "similarity": round(member["similarity"], 3),
        }
        for member in members[:: max(1, -(-len(members) // ROWS))]
    ]
