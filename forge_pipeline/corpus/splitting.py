"""Train, validation and test, and a training text that holds nothing of what will be evaluated.

The split is a function of content alone. What was decided for earlier batches stays: their evaluation items are cut
from the training text of this batch, and a held-out document of this batch that their training text has seen is
left out of evaluation.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.decontamination import (
    EVALUATION_NGRAMS,
    TRAINING_NGRAMS,
    Cut,
    EvaluationNgrams,
    find_cuts,
    moved,
    sampled_ngrams,
    seen_share,
    training_index,
    without,
)
from forge_pipeline.corpus.settings import SplittingSettings
from forge_pipeline.corpus.shingles import Hashes, word_hashes
from forge_pipeline.corpus.summaries import ROWS, count_table, share_histogram
from forge_pipeline.corpus.workers import Failure, Job, run_job
from forge_pipeline.reporting import Check, Outcome, Progress, Table

CODE_VERSION = "1"
STEP = "splitting"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
_SECONDS_PER_DOCUMENT = 120.0

Row = dict[str, Any]


def split_of(split_group: str, settings: SplittingSettings) -> str:
    """The split of all documents of a group: SHA-256 of salt and group, as a number in 0..1."""
    digest = hashlib.sha256(f"{settings.salt}{split_group}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < settings.train:
        return TRAIN
    return VALIDATION if place < settings.train + settings.validation else TEST


def split_documents(
    settings: SplittingSettings,
    unique: Path,
    earlier: Sequence[Path],
    output: Path,
    progress: Progress,
    *,
    workers: int | None = None,
) -> Outcome:
    """Split a batch's unique documents, catalogue them, and remove evaluation items from the training text.

    ``unique`` holds documents and membership, ``earlier`` the parts that this function wrote for the batches before,
    in their order. Writes `documents.parquet` (in the order of the input), `catalog.parquet`, `decisions.parquet`,
    and the n-grams that later batches are checked against.
    """
    limits = settings.decontamination
    clusters = _clusters(unique)
    rows = [
        {**row, "split": split_of(row["split_group"], settings), "cluster_id": clusters[row["doc_id"]]}
        for row in tables.iterate_rows(unique, tables.DOCUMENTS)
    ]
    entries = _catalogue(rows, progress, workers)
    decisions: list[Row] = []
    dropped = _drop_seen(rows, earlier, settings, decisions)
    evaluation = EvaluationNgrams(limits)
    _add_evaluation(evaluation, [row for row in rows if row["doc_id"] not in dropped], entries)
    with tables.RowWriter(output / tables.CATALOG, tables.CATALOG_SCHEMA) as catalog:
        evaluation.write(output / EVALUATION_NGRAMS)
        for part in earlier:
            evaluation.add_part(part)
        progress.note("removing evaluation items from the training text")
        samples: dict[str, Hashes] = {}
        cuts = find_cuts(_hashed(rows, samples, limits.ngram_words), evaluation, limits)
        dropped |= _decide_cuts(rows, cuts, settings, decisions)
        kept: list[Row] = []
        for row in rows:
            if row["doc_id"] in dropped:
                samples.pop(row["doc_id"], None)
                continue
            row_cuts = cuts.get(row["doc_id"], [])
            kept.append(_cut_row(row, row_cuts))
            catalog.write_all(_entry_rows(row, entries[row["doc_id"]], row_cuts))
            if row_cuts:
                samples[row["doc_id"]] = sampled_ngrams(word_hashes(kept[-1]["text"]), limits.ngram_words)
    tables.write_table(output / tables.DOCUMENTS, tables.TRAINING_SCHEMA, kept)
    tables.write_table(output / tables.DECISIONS, tables.DECISION_SCHEMA, decisions)
    np.save(output / TRAINING_NGRAMS, training_index([*samples.values()], limits.common_documents), allow_pickle=False)
    return _outcome(rows, kept, decisions, output)


def _clusters(unique: Path) -> dict[str, str]:
    table = tables.read_table(unique, tables.MEMBERSHIP, ["doc_id", "cluster_id", "kept"])
    return {row["doc_id"]: row["cluster_id"] for row in table.to_pylist() if row["kept"]}


def _catalogue(rows: Sequence[Row], progress: Progress, workers: int | None) -> dict[str, list[Row]]:
    """Catalog entries by document. A document that cannot be catalogued has none, and is noted."""
    job = Job("forge_pipeline.corpus.catalog:cataloguer", {}, _SECONDS_PER_DOCUMENT)
    items = ({name: row[name] for name in ("doc_id", "path", "format", "title", "text")} for row in rows)
    entries: dict[str, list[Row]] = {}
    with progress.task("catalogue documents", len(rows), "documents") as task:
        for row, result in zip(rows, run_job(job, items, workers), strict=True):
            if isinstance(result, Failure):
                progress.note(f"{row['path']} was not catalogued: {result.detail}")
            entries[row["doc_id"]] = [] if isinstance(result, Failure) else result["entries"]
            task.advance()
    return entries


def _drop_seen(
    rows: Sequence[Row], earlier: Sequence[Path], settings: SplittingSettings, decisions: list[Row]
) -> set[str]:
    """Held-out documents that the training text of earlier batches has seen too much of."""
    limits = settings.decontamination
    parts = [np.load(part / TRAINING_NGRAMS, allow_pickle=False) for part in earlier]
    dropped = set()
    for row in rows if parts else ():
        if row["split"] == TRAIN:
            continue
        share = seen_share(sampled_ngrams(word_hashes(row["text"]), limits.ngram_words), parts)
        if share > limits.maximum_seen_fraction:
            dropped.add(row["doc_id"])
            detail = f"left out of {row['split']}: training text of earlier batches has this share of its n-grams"
            decisions.append(
                tables.decision(
                    row,
                    STEP,
                    "seen_in_training",
                    "drop",
                    value=share,
                    threshold=limits.maximum_seen_fraction,
                    detail=detail,
                )
            )
    return dropped


def _add_evaluation(evaluation: EvaluationNgrams, rows: Sequence[Row], entries: Mapping[str, list[Row]]) -> None:
    for row in rows:
        if row["split"] != TRAIN:
            evaluation.add_document(row["doc_id"], row["text"])
            for entry in entries[row["doc_id"]]:
                if entry["summary"]:
                    evaluation.add_item(row["doc_id"], f"{entry['signature'] or entry['name']} {entry['summary']}")


def _hashed(rows: Sequence[Row], samples: dict[str, Hashes], length: int) -> Iterator[tuple[Row, Hashes]]:
    """Training documents with the hashes of their words; leaves a sample of their n-grams in ``samples``."""
    for row in rows:
        if row["split"] == TRAIN:
            words = word_hashes(row["text"])
            samples[row["doc_id"]] = sampled_ngrams(words, length)
            yield row, words


def _decide_cuts(
    rows: Sequence[Row], cuts: Mapping[str, list[Cut]], settings: SplittingSettings, decisions: list[Row]
) -> set[str]:
    """A decision for every cut, or one for the whole document where too much would go."""
    limit = settings.decontamination.maximum_cut_fraction
    dropped = set()
    for row in rows:
        found = cuts.get(row["doc_id"], [])
        share = sum(cut.end - cut.start for cut in found) / max(1, len(row["text"]))
        if share > limit or (found and not without(row["text"], found).strip()):
            dropped.add(row["doc_id"])
            detail = f"shares {found[0].words} words in a row with {found[0].doc_id}, and more"
            decisions.append(
                tables.decision(row, STEP, "contaminated", "drop", value=share, threshold=limit, detail=detail)
            )
            continue
        for cut in found:
            detail = f"{cut.end - cut.start} characters cut, which share {cut.words} words in a row with {cut.doc_id}"
            decisions.append(
                tables.decision(row, STEP, "evaluation_overlap", "alter", value=float(cut.start), detail=detail)
            )
    return dropped


def _cut_row(row: Row, cuts: Sequence[Cut]) -> Row:
    if not cuts:
        return row
    text = without(row["text"], cuts)
    return {**row, "text": text, "bytes": len(text.encode("utf-8"))}


def _entry_rows(row: Row, entries: Sequence[Row], cuts: Sequence[Cut]) -> Iterator[Row]:
    """Catalog rows with their places after the cuts; entries that a cut touches are gone."""
    for entry in entries:
        span = moved(entry["start"], entry["end"], cuts)
        if span is not None:
            place = {"start": span[0], "end": span[1]}
            yield {**entry, **place, "doc_id": row["doc_id"], "split": row["split"], "source": row["source"]}


def _outcome(rows: Sequence[Row], kept: Sequence[Row], decisions: Sequence[Row], output: Path) -> Outcome:
    documents = Counter(row["split"] for row in kept)
    sizes = {split: sum(row["bytes"] for row in kept if row["split"] == split) for split in SPLITS}
    rules = Counter(row["rule"] for row in decisions)
    catalog = tables.read_table(output, tables.CATALOG, ["split", "kind", "summary"]).to_pylist()
    entries = Counter(entry["split"] for entry in catalog)
    summarised = Counter(entry["split"] for entry in catalog if entry["summary"])
    counts: dict[str, Any] = {
        "documents_in": len(rows),
        "documents_kept": len(kept),
        "documents_dropped": len(rows) - len(kept),
        "dropped_contaminated": rules["contaminated"],
        "dropped_seen_in_training": rules["seen_in_training"],
        "evaluation_overlaps_cut": rules["evaluation_overlap"],
        "bytes_in": sum(row["bytes"] for row in rows),
        "bytes_kept": sum(sizes.values()),
        "entries": len(catalog),
    }
    for split in SPLITS:
        counts[f"{split}_documents"] = documents[split]
        counts[f"{split}_bytes"] = sizes[split]
        counts[f"{split}_entries_with_summary"] = summarised[split]
    cut_bytes = Counter[str]()
    for row in decisions:
        cut_bytes[row["path"]] += row["rule"] == "evaluation_overlap"
    overlaps = [row["value"] for row in decisions if row["action"] == "drop"]
    return Outcome(
        counts=counts,
        checks=[
            Check(
                f"has_{split}_documents", documents[split] > 0, f"the {split} split holds documents", documents[split]
            )
            for split in SPLITS
        ],
        tables=[
            Table(
                "Splits",
                ("split", "documents", "bytes", "catalog entries", "with a summary"),
                tuple((s, documents[s], sizes[s], entries[s], summarised[s]) for s in SPLITS),
            ),
            count_table("Catalog entries, by kind", "kind", Counter(entry["kind"] for entry in catalog), "entries"),
            Table(
                "Training documents with the most cuts",
                ("path", "cuts"),
                tuple((path, count) for path, count in cut_bytes.most_common(ROWS) if count),
            ),
        ],
        plots=[share_histogram("Overlap of dropped documents", "share of the document", overlaps)],
    )
