"""The stored tables behind a lineage view, under the names that the lineage queries use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from forge_pipeline.corpus import tables as corpus_tables
from forge_pipeline.governance import lineage_view
from forge_pipeline.governance.lineage_view import CORPUS_STAGES, LineageView
from forge_pipeline.governance.queries import Tables
from forge_pipeline.storage import Record
from forge_pipeline.tokens.order import EXPOSURE_SCHEMA
from forge_pipeline.tokens.shards import INDEX, INDEX_SCHEMA

EXPOSURE_FILE = "exposure.parquet"
ITEM_COLUMNS = ("doc_id", "kind", "item", "own_split", "stage", "artifact", "fingerprint")
ITEM_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ITEM_COLUMNS])
# Columns that name a document or an entry of one; an item's own id is another column that ends in "_id".
NOT_ITEM_IDS = ("doc_id", "entry_id", "cluster_id", "matched_doc_id")


def define_documents(tables: Tables, view: LineageView) -> None:
    """The corpus's tables, each over all batches that are behind the view's artifacts."""
    for name, stage, file, schema in (
        ("landing", lineage_view.LANDING_FILES, corpus_tables.FILES, corpus_tables.LANDING_SCHEMA),
        ("documents", lineage_view.DOCUMENTS, corpus_tables.DOCUMENTS, corpus_tables.DOCUMENT_SCHEMA),
        ("quarantine", lineage_view.DOCUMENTS, corpus_tables.QUARANTINE, corpus_tables.QUARANTINE_SCHEMA),
        ("curated", lineage_view.CURATED_DOCUMENTS, corpus_tables.DOCUMENTS, corpus_tables.CURATED_SCHEMA),
        ("membership", lineage_view.UNIQUE_DOCUMENTS, corpus_tables.MEMBERSHIP, corpus_tables.MEMBERSHIP_SCHEMA),
        ("training_documents", lineage_view.TRAINING_DOCUMENTS, corpus_tables.DOCUMENTS, corpus_tables.TRAINING_SCHEMA),
        ("catalog", lineage_view.TRAINING_DOCUMENTS, corpus_tables.CATALOG, corpus_tables.CATALOG_SCHEMA),
        ("token_index", lineage_view.TOKEN_SHARDS, INDEX, INDEX_SCHEMA),
    ):
        tables.view(name, schema, view.tables(view.stage(stage), file))
    decisions = [record for stage in CORPUS_STAGES for record in view.stage(stage)]
    tables.view("decisions", corpus_tables.DECISION_SCHEMA, view.tables(decisions, corpus_tables.DECISIONS))


def define_training(tables: Tables, view: LineageView) -> None:
    """`exposure`, `items` (what was made from a document) and `trained_items` (those that trained a model)."""
    tables.view("exposure_rows", EXPOSURE_SCHEMA, view.tables(view.trained_models(), EXPOSURE_FILE))
    # The stored table also lists the documents that no step has reached.
    tables.define("exposure", "SELECT * FROM exposure_rows WHERE tokens > 0")
    tables.give("item_rows", pa.concat_tables([ITEM_SCHEMA.empty_table(), *_items(tables, view)]))
    training = [record.fingerprint for record in view.records if _went_into_training(view, record)]
    tables.give("training_artifacts", pa.table({"fingerprint": pa.array(training, pa.string())}))
    # Held-out examples, questions and pairs lie beside those for training; their split or their document's tells.
    tables.define(
        "items",
        "SELECT i.*, CASE WHEN coalesce(own_split, d.split) = 'train' AND a.fingerprint IS NOT NULL THEN 'training' "
        "WHEN coalesce(own_split, d.split) = 'validation' THEN 'validation' ELSE 'test' END AS use "
        "FROM item_rows i LEFT JOIN training_documents d ON d.doc_id = i.doc_id "
        "LEFT JOIN training_artifacts a ON a.fingerprint = i.fingerprint",
    )
    tables.define("trained_items", "SELECT * FROM items WHERE use = 'training'")


def _items(tables: Tables, view: LineageView) -> Iterable[pa.Table]:
    """Rows (doc_id, kind, item, stage, artifact) of every table that says which document a row was made from."""
    for record in view.records:
        if record.key.stage in CORPUS_STAGES or lineage_view.is_trained_model(record):
            continue
        folder = view.store.read(record)
        for entry in record.files:
            if entry.path.endswith(".parquet") and "/" not in entry.path:
                yield from _items_of(tables, record, folder / entry.path)


def _items_of(tables: Tables, record: Record, path: Path) -> Iterable[pa.Table]:
    names = pq.read_schema(path).names
    own_id = next((name for name in names if name.endswith("_id") and name not in NOT_ITEM_IDS), None)
    if "doc_ids" in names:
        documents = "unnest(doc_ids)"
    elif "doc_id" in names:
        documents = "doc_id"
    elif "entry_id" in names:
        documents = "(SELECT any_value(c.doc_id) FROM catalog c WHERE c.entry_id = rows_of.entry_id)"
    else:
        return
    item = f'"{own_id}"::VARCHAR' if own_id else "NULL::VARCHAR"
    own_split = "split" if "split" in names else "NULL::VARCHAR"
    tables.read("rows_of", path)
    yield tables.table(
        f"SELECT * FROM (SELECT {documents} AS doc_id, $kind AS kind, {item} AS item, "
        f"{own_split} AS own_split, $stage AS stage, "
        "$artifact AS artifact, $fingerprint AS fingerprint FROM rows_of) WHERE doc_id IS NOT NULL",
        kind=own_id.removesuffix("_id") if own_id else path.stem,
        stage=record.key.stage,
        artifact=str(record.key),
        fingerprint=record.fingerprint,
    ).cast(ITEM_SCHEMA)


def _went_into_training(view: LineageView, record: Record) -> bool:
    return any(lineage_view.is_trained_model(made) for made in view.made_from(record))


def documents_meant(tables: Tables, subject: str) -> list[str]:
    """The ids that ``subject`` stands for: itself, or those of the documents in the file with this path."""
    rows = tables.rows(
        "SELECT doc_id FROM documents WHERE doc_id = $subject OR path = $subject "
        "OR (source, path) IN (SELECT (source, path) FROM landing WHERE location = $subject) "
        "GROUP BY doc_id ORDER BY min(part), min(path), doc_id",
        subject=subject,
    )
    return [row["doc_id"] for row in rows]


def models_from(view: LineageView, record: Record) -> list[Record]:
    return [made for made in view.made_from(record) if lineage_view.is_trained_model(made)]
