"""Figures of a model's lineage, counted from stored tables: for its card and its audit page."""

from __future__ import annotations

from typing import Any

from forge_pipeline.governance.lineage_tables import define_documents, define_training
from forge_pipeline.governance.lineage_view import CORPUS_STAGES, LANDING_FILES, LineageView
from forge_pipeline.governance.queries import Tables
from forge_pipeline.release.facts import LineageFacts, SourceFacts, StageFacts, flatten

# A document's sources are those of the landing files; where a stage has no rows for one, it counts 0.
SOURCE_FLOW = """
WITH landed AS (
    SELECT source, count(*) AS landed, sum(bytes)::BIGINT AS bytes,
           coalesce(string_agg(DISTINCT licence, ', ' ORDER BY licence) FILTER (licence <> ''), '') AS licence,
           coalesce(string_agg(DISTINCT owner, ', ' ORDER BY owner) FILTER (owner <> ''), '') AS owner,
           coalesce(string_agg(DISTINCT purpose, ', ' ORDER BY purpose) FILTER (purpose <> ''), '') AS purpose
    FROM landing GROUP BY source
), read AS (SELECT source, count(*) AS documents FROM documents GROUP BY source
), refused AS (SELECT source, count(*) AS quarantined FROM quarantine GROUP BY source
), clean AS (SELECT source, count(*) AS curated FROM curated GROUP BY source
), used AS (
    SELECT source, count(*) AS training, count(*) FILTER (split = 'train') AS train
    FROM training_documents GROUP BY source
), tokenised AS (SELECT source, sum(length)::BIGINT AS tokens FROM token_index WHERE split = 'train' GROUP BY source
), seen AS (
    SELECT source, sum(e.tokens)::BIGINT AS tokens_seen
    FROM exposure e JOIN training_documents d USING (doc_id) GROUP BY source
)
SELECT source, coalesce(licence, '') AS licence, coalesce(owner, '') AS owner, coalesce(purpose, '') AS purpose,
       coalesce(landed, 0) AS landed, coalesce(bytes, 0) AS bytes, coalesce(documents, 0) AS documents,
       coalesce(quarantined, 0) AS quarantined, coalesce(curated, 0) AS curated,
       coalesce(training, 0) AS training, coalesce(train, 0) AS train,
       coalesce(tokens, 0) AS tokens, coalesce(tokens_seen, 0) AS tokens_seen
FROM landed FULL JOIN read USING (source) FULL JOIN refused USING (source) FULL JOIN clean USING (source)
     FULL JOIN used USING (source) FULL JOIN tokenised USING (source) FULL JOIN seen USING (source)
ORDER BY tokens DESC, training DESC, landed DESC, source
"""


def source_flow(tables: Tables) -> list[dict[str, Any]]:
    """For each source: licence, owner, purpose, and how many documents and tokens were left at each stage."""
    return tables.rows(SOURCE_FLOW)


def facts_of_model(view: LineageView, model: str) -> LineageFacts:
    """What the model card says about the lineage in ``view``, of the recipe called ``model``."""
    with Tables() as tables:
        define_documents(tables, view)
        define_training(tables, view)
        flow = source_flow(tables)
    corpora = sorted({record.key.owner for record in view.records if record.key.stage in CORPUS_STAGES})
    return LineageFacts(
        model=model,
        corpus=", ".join(corpora),
        batches=len(view.stage(LANDING_FILES)),
        documents=sum(row["training"] for row in flow),
        training_tokens=sum(row["tokens"] for row in flow),
        tokens_seen=sum(row["tokens_seen"] for row in flow),
        sources=tuple(
            SourceFacts(
                source=row["source"],
                licence=row["licence"],
                owner=row["owner"],
                purpose=row["purpose"],
                landed=row["landed"],
                documents=row["training"],
                tokens=row["tokens"],
            )
            for row in flow
        ),
        stages=tuple(
            StageFacts(
                stage=record.key.stage,
                fingerprint=record.fingerprint,
                seconds=record.seconds,
                parameters=flatten(record.parameters),
                counts=dict(record.counts),
            )
            for record in view.trained_models()
        ),
        fingerprints={str(record.key): record.fingerprint for record in view.records},
    )
