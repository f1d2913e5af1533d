"""Why a document is, or is not, in the training data: every decision about it, in the order of the lineage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_pipeline.errors import SourceError
from forge_pipeline.governance import lineage_view
from forge_pipeline.governance.lineage_tables import define_documents, define_training, documents_meant
from forge_pipeline.governance.lineage_view import LineageView
from forge_pipeline.governance.queries import Tables

MINE = "list_contains($doc_ids, doc_id)"


@dataclass(frozen=True)
class Event:
    """One thing that happened to a document or its file, in the order of the lineage.

    ``action``: landed, extracted, quarantined, drop, redact, alter (as the stage's decisions say), kept,
    duplicate, split, tokenised, trained, used.
    """

    stage: str
    batch: str
    action: str
    doc_id: str | None
    path: str | None
    rule: str
    value: float | None
    threshold: float | None
    detail: str


@dataclass(frozen=True)
class Explanation:
    """Why a document is or is not in the training data. ``documents`` are the ids that ``subject`` stands for."""

    subject: str
    documents: tuple[str, ...]
    events: tuple[Event, ...]


def why(view: LineageView, subject: str) -> Explanation:
    """Everything that was decided about a document (its id) or a file (its path or location), in order.

    Raises SourceError if nothing in ``view`` has this id or path.
    """
    with Tables() as tables:
        define_documents(tables, view)
        define_training(tables, view)
        doc_ids = documents_meant(tables, subject)
        events = [
            *_landing_events(tables, subject, doc_ids),
            *_extraction_events(tables, subject, doc_ids),
            *_curation_events(tables, doc_ids),
            *_duplicate_events(tables, doc_ids),
            *_split_events(tables, doc_ids),
            *_token_events(tables, doc_ids),
            *_training_events(tables, doc_ids),
        ]
    if not events:
        raise SourceError(
            f"no document or file here is {subject!r}",
            fix="give a document id (32 hexadecimal digits), a path inside its source, or the file's full path",
        )
    return Explanation(subject, tuple(doc_ids), tuple(events))


def _event(row: Mapping[str, Any], stage: str, action: str, **facts: Any) -> Event:
    return Event(
        stage=stage,
        batch=row.get("batch") or "",
        action=action,
        doc_id=row.get("doc_id"),
        path=row.get("path"),
        rule=facts.get("rule") or "",
        value=facts.get("value"),
        threshold=facts.get("threshold"),
        detail=facts.get("detail") or "",
    )


def _landing_events(tables: Tables, subject: str, doc_ids: Sequence[str]) -> Iterator[Event]:
    rows = tables.rows(
        "SELECT * FROM landing WHERE path = $subject OR location = $subject OR (source, path) IN "
        f"(SELECT (source, path) FROM documents WHERE {MINE}) ORDER BY place, line",
        subject=subject,
        doc_ids=list(doc_ids),
    )
    for row in rows:
        said = "".join(f"; {name} {row[name]}" for name in ("licence", "owner", "purpose") if row[name])
        yield _event(
            row,
            lineage_view.LANDING_FILES,
            "landed",
            detail=f"{row['bytes']:,} bytes at {row['location']}; sha256 {row['sha256']}{said}",
        )


def _extraction_events(tables: Tables, subject: str, doc_ids: Sequence[str]) -> Iterator[Event]:
    quarantined = tables.rows(
        "SELECT * FROM quarantine WHERE path = $subject OR (source, path) IN "
        "(SELECT (source, path) FROM landing WHERE location = $subject) ORDER BY place, line",
        subject=subject,
    )
    for row in quarantined:
        yield _event(row, lineage_view.DOCUMENTS, "quarantined", rule=row["format"], detail=row["reason"])
    extracted = tables.rows(
        f"SELECT doc_id, path || part AS path, format, bytes, batch FROM documents WHERE {MINE} ORDER BY place, line",
        doc_ids=list(doc_ids),
    )
    for row in extracted:
        detail = f"{row['bytes']:,} bytes of text"
        yield _event(row, lineage_view.DOCUMENTS, "extracted", rule=row["format"], detail=detail)


def _decided(tables: Tables, stage: str, doc_ids: Sequence[str]) -> Iterator[Event]:
    """The stored decisions of one stage, as they were taken."""
    rows = tables.rows(
        f"SELECT * FROM decisions WHERE stage = $stage AND {MINE} ORDER BY place, line",
        stage=stage,
        doc_ids=list(doc_ids),
    )
    for row in rows:
        rule = f"{row['step']}: {row['rule']}"
        figures = {"value": row["value"], "threshold": row["threshold"]}
        yield _event(row, stage, row["action"], rule=rule, detail=row["detail"], **figures)


def _curation_events(tables: Tables, doc_ids: Sequence[str]) -> Iterator[Event]:
    yield from _decided(tables, lineage_view.CURATED_DOCUMENTS, doc_ids)
    kept = tables.rows(
        "SELECT doc_id, path || part AS path, language, language_confidence, bytes, batch FROM curated "
        f"WHERE {MINE} ORDER BY place, line",
        doc_ids=list(doc_ids),
    )
    for row in kept:
        confidence = row["language_confidence"]
        sure = "" if confidence is None else f" (confidence {confidence:.2f})"
        detail = f"{row['bytes']:,} bytes of text, language {row['language']}{sure}"
        yield _event(row, lineage_view.CURATED_DOCUMENTS, "kept", detail=detail)


def _duplicate_events(tables: Tables, doc_ids: Sequence[str]) -> Iterator[Event]:
    rows = tables.rows(
        "SELECT m.*, d.path AS other FROM membership m "
        "LEFT JOIN (SELECT doc_id, any_value(path || part) AS path FROM curated GROUP BY doc_id) d "
        "ON d.doc_id = coalesce(m.matched_doc_id, m.cluster_id) "
        "WHERE list_contains($doc_ids, m.doc_id) ORDER BY m.place, m.line",
        doc_ids=list(doc_ids),
    )
    for row in rows:
        other = f"{row['matched_doc_id'] or row['cluster_id']} ({row['other']})"
        if row["kept"]:
            action, detail = "kept", "the first of its kind"
        else:
            action, detail = "duplicate", f"{row['kind']} duplicate of {other}, which was seen first"
        yield _event(
            row, lineage_view.UNIQUE_DOCUMENTS, action, rule=row["kind"], value=row["similarity"], detail=detail
        )


def _split_events(tables: Tables, doc_ids: Sequence[str]) -> Iterator[Event]:
    yield from _decided(tables, lineage_view.TRAINING_DOCUMENTS, doc_ids)
    rows = tables.rows(
        "SELECT doc_id, path || part AS path, split, split_group, batch FROM training_documents "
        f"WHERE {MINE} ORDER BY place, line",
        doc_ids=list(doc_ids),
    )
    for row in rows:
        detail = f"{row['split']}, by the hash of split group {row['split_group']}"
        yield _event(row, lineage_view.TRAINING_DOCUMENTS, "split", rule=row["split"], detail=detail)


def _token_events(tables: Tables, doc_ids: Sequence[str]) -> Iterator[Event]:
    rows = tables.rows(f"SELECT * FROM token_index WHERE {MINE} ORDER BY place, line", doc_ids=list(doc_ids))
    for row in rows:
        detail = f"{row['length']:,} tokens in shard {row['shard']} from token {row['offset']:,}"
        yield _event(row, lineage_view.TOKEN_SHARDS, "tokenised", value=row["length"], detail=detail)


def _training_events(tables: Tables, doc_ids: Sequence[str]) -> Iterator[Event]:
    exposed = tables.rows(f"SELECT * FROM exposure WHERE {MINE} ORDER BY place, line", doc_ids=list(doc_ids))
    for row in exposed:
        detail = (
            f"{row['tokens']:,} tokens seen in steps {row['first_step']:,} to {row['last_step']:,}, "
            f"in {row['epochs']} epochs"
        )
        yield _event(row, row["stage"], "trained", value=row["tokens"], detail=detail)
    used = tables.rows(
        "SELECT stage, artifact, kind, use, doc_id, count(*) AS items FROM items "
        f"WHERE {MINE} GROUP BY ALL ORDER BY artifact, kind, use, doc_id",
        doc_ids=list(doc_ids),
    )
    for row in used:
        detail = f"{row['items']:,} rows ({row['kind']}) of {row['artifact']} for {row['use']}"
        yield _event(row, row["stage"], "used", rule=row["use"], value=row["items"], detail=detail)
