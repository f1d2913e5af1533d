"""Lineage questions, answered by joins over stored tables alone.

Which documents made this model, and which models did this document reach? Each answer comes from the artifacts in
a `LineageView`, so it is about exactly the artifacts that made the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from forge_pipeline.governance.lineage_tables import define_documents, define_training, documents_meant, models_from
from forge_pipeline.governance.lineage_view import LineageView
from forge_pipeline.governance.queries import Tables

DOCUMENTS_OF_MODEL = """
WITH exposed AS (
    SELECT doc_id, sum(tokens)::BIGINT AS tokens_seen, min(first_step) AS first_step, max(last_step) AS last_step,
           sum(epochs)::BIGINT AS epochs
    FROM exposure GROUP BY doc_id
), used AS (
    SELECT doc_id, count(*) AS examples FROM trained_items GROUP BY doc_id
), reached AS (SELECT doc_id FROM exposed UNION SELECT doc_id FROM used)
SELECT doc_id, d.path, d.part, d.title, d.source, d.licence, d.owner, d.purpose, d.format, d.language, d.split,
       t.length AS tokens, coalesce(tokens_seen, 0) AS tokens_seen, first_step, last_step,
       coalesce(epochs, 0) AS epochs, coalesce(examples, 0) AS examples
FROM reached LEFT JOIN exposed USING (doc_id) LEFT JOIN used USING (doc_id)
     LEFT JOIN training_documents d USING (doc_id) LEFT JOIN token_index t USING (doc_id)
ORDER BY tokens_seen DESC, examples DESC, doc_id
"""


@dataclass(frozen=True)
class Reach:
    """One way in which a document reached a model.

    ``use`` is "training", "validation" or "test"; ``via`` says what carried it: "tokens" of pre-training, or the
    kind of item (example, pair, task, question). ``doc_id`` is the document itself or (``relation`` "exact" or
    "near") the duplicate of it that was kept in its place. ``trained`` lists the models whose weights were
    trained on it, directly or by starting from such weights.
    """

    model: str
    stage: str
    via: str
    item: str | None
    use: str
    doc_id: str
    relation: str
    tokens: int | None
    first_step: int | None
    last_step: int | None
    epochs: int | None
    trained: tuple[str, ...]
    artifact: str


def documents_of_model(view: LineageView, *, limit: int | None = None) -> pa.Table:
    """Every document that trained the model of ``view``, the ones it saw most of first.

    Columns: doc_id, path, part, title, source, licence, owner, purpose, format, language, split, tokens (length in
    tokens, with the end token), tokens_seen (with repetition, in pre-training), first_step, last_step (steps of
    pre-training, null if it was never in one), epochs, examples (training examples, pairs and tasks made from it).
    """
    bound = {} if limit is None else {"limit": limit}
    with Tables() as tables:
        define_documents(tables, view)
        define_training(tables, view)
        return tables.table(DOCUMENTS_OF_MODEL + ("LIMIT $limit" if limit is not None else ""), **bound)


def models_of_document(views: Iterable[LineageView], document: str) -> list[Reach]:
    """All ways in which a document (its id, or the path of its file) reached the models of ``views``.

    A document that was dropped as a duplicate reached a model through the document kept in its place.
    """
    reached: list[Reach] = []
    for view in views:
        with Tables() as tables:
            define_documents(tables, view)
            doc_ids = documents_meant(tables, document)
            if doc_ids:
                define_training(tables, view)
                reached += _reach(tables, view, _with_duplicates(tables, doc_ids))
    return reached


def _with_duplicates(tables: Tables, doc_ids: Sequence[str]) -> dict[str, str]:
    """``doc_ids`` as "itself", and for each that was dropped the kept one it duplicates, with the kind."""
    related = dict.fromkeys(doc_ids, "itself")
    rows = tables.rows(
        "SELECT unnest([cluster_id, matched_doc_id]) AS doc_id, kind FROM membership "
        "WHERE NOT kept AND list_contains($doc_ids, doc_id) ORDER BY place, line, doc_id",
        doc_ids=list(doc_ids),
    )
    for row in rows:
        if row["doc_id"] is not None:
            related.setdefault(row["doc_id"], row["kind"])
    return related


def _reach(tables: Tables, view: LineageView, related: dict[str, str]) -> list[Reach]:
    given = {"doc_ids": list(related)}
    reached = []
    exposures = {
        (row["fingerprint"], row["doc_id"]): row
        for row in tables.rows("SELECT * FROM exposure WHERE list_contains($doc_ids, doc_id)", **given)
    }
    models = view.trained_models()
    for record in models:
        for doc_id, relation in related.items():
            row = exposures.get((record.fingerprint, doc_id))
            if row is not None:
                reached.append(
                    Reach(
                        model=record.key.owner,
                        stage=record.key.stage,
                        via="tokens",
                        item=None,
                        use="training",
                        doc_id=doc_id,
                        relation=relation,
                        tokens=row["tokens"],
                        first_step=row["first_step"],
                        last_step=row["last_step"],
                        epochs=row["epochs"],
                        trained=tuple(str(made.key) for made in [record, *models_from(view, record)]),
                        artifact=str(record.key),
                    )
                )
    makers = {record.fingerprint: record for record in view.records}
    rows = tables.rows(
        "SELECT * FROM items WHERE list_contains($doc_ids, doc_id) ORDER BY stage, artifact, kind, item, doc_id",
        **given,
    )
    for row in rows:
        record = makers[row["fingerprint"]]
        trained = models_from(view, record) if row["use"] == "training" else []
        reached.append(
            Reach(
                model=record.key.owner,
                stage=row["stage"],
                via=row["kind"],
                item=row["item"],
                use=row["use"],
                doc_id=row["doc_id"],
                relation=related[row["doc_id"]],
                tokens=None,
                first_step=None,
                last_step=None,
                epochs=None,
                trained=tuple(str(made.key) for made in trained),
                artifact=row["artifact"],
            )
        )
    return reached
