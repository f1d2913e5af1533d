"""Clean documents: normalised, with their language, worth learning from, without personal data and secrets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.settings import CurationSettings
from forge_pipeline.corpus.summaries import ROWS, bar_plot, count_table, length_histogram, prefixed
from forge_pipeline.corpus.workers import Failure, Job, run_job
from forge_pipeline.reporting import Outcome, Progress, Table

CODE_VERSION = "1"
STEP = "curation"


@dataclass
class _Tally:
    """What the page shows of a batch."""

    documents: int = 0
    bytes_in: int = 0
    bytes_kept: int = 0
    altered: int = 0
    lengths: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    alterations: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)


def curate_documents(
    settings: CurationSettings, documents: Path, output: Path, progress: Progress, *, workers: int | None = None
) -> Outcome:
    """Curate every document of a batch; write `documents.parquet` (kept ones) and `decisions.parquet`.

    ``documents`` holds the table of the same name. Every drop, redaction and alteration is a decision row; every
    document is in the output or has a row with the action "drop".
    """
    tally = _Tally()
    job = Job("forge_pipeline.corpus.curator:curator", settings.model_dump(mode="json"), settings.seconds_per_document)
    rows = list(tables.iterate_rows(documents, tables.DOCUMENTS))
    items = ({"text": row["text"], "format": row["format"]} for row in rows)
    with (
        tables.RowWriter(output / tables.DOCUMENTS, tables.CURATED_SCHEMA) as kept,
        tables.RowWriter(output / tables.DECISIONS, tables.DECISION_SCHEMA) as decisions,
        progress.task("curate documents", len(rows), "documents") as task,
    ):
        for row, result in zip(rows, run_job(job, items, workers), strict=True):
            tally.documents += 1
            tally.bytes_in += row["bytes"]
            if isinstance(result, Failure):
                decisions.write(tables.decision(row, STEP, result.kind, "drop", detail=result.detail))
                tally.dropped[result.kind] += 1
            else:
                decisions.write_all(_decisions(row, result, tally))
                if result["kept"]:
                    kept.write(_curated(row, result, tally))
            task.advance()
    return _outcome(tally, output)


def _decisions(row: dict[str, Any], result: dict[str, Any], tally: _Tally) -> Iterator[dict[str, Any]]:
    counters = {"drop": tally.dropped, "redact": tally.redacted, "alter": tally.alterations}
    for rule, action, value, threshold, detail in result["decisions"]:
        counters[action][rule] += 1
        yield tables.decision(row, STEP, rule, action, value=value, threshold=threshold, detail=detail)


def _curated(row: dict[str, Any], result: dict[str, Any], tally: _Tally) -> dict[str, Any]:
    if result["text"] is not None:
        row = {**row, "text": result["text"], "bytes": len(result["text"].encode("utf-8"))}
        tally.altered += 1
    tally.bytes_kept += row["bytes"]
    tally.lengths.append(len(row["text"]))
    tally.languages[result["language"]] += 1
    return {**row, "language": result["language"], "language_confidence": result["confidence"]}


def _outcome(tally: _Tally, output: Path) -> Outcome:
    return Outcome(
        counts={
            "documents_in": tally.documents,
            "documents_kept": len(tally.lengths),
            "documents_dropped": tally.documents - len(tally.lengths),
            "documents_altered": tally.altered,
            "redactions": tally.redacted.total(),
            "bytes_in": tally.bytes_in,
            "bytes_kept": tally.bytes_kept,
            **prefixed("dropped_", tally.dropped),
            **prefixed("redacted_", tally.redacted),
        },
        tables=[
            count_table("Dropped, by rule", "rule", tally.dropped),
            count_table("Redacted, by kind", "kind", tally.redacted, "values"),
            count_table("Altered, by repair", "repair", tally.alterations),
            count_table("Kept, by language", "language", tally.languages),
            _dropped_sample(output),
        ],
        plots=[
            length_histogram("Length of documents kept", tally.lengths),
            bar_plot("Language of documents kept", "language", tally.languages),
        ],
    )


def _dropped_sample(output: Path) -> Table:
    columns = ["path", "rule", "value", "threshold", "action", "detail"]
    rows = [row for row in tables.iterate_rows(output, tables.DECISIONS, columns) if row.pop("action") == "drop"]
    return Table.of("Dropped documents (evenly spaced sample)", rows[:: max(1, -(-len(rows) // ROWS))])
