"""What a finished run comes to: the table that `forge run` ends with, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow.parquet as pq

from forge_pipeline.lineage.execution import Lineage
from forge_pipeline.lineage.model_evaluation import EVALUATIONS
from forge_pipeline.lineage.stage import StageName
from forge_pipeline.storage import Record


def summarise(lineage: Lineage, model: str, corpus: str) -> dict[str, Any]:
    """Plain JSON, from sealed records and tables alone. Parts whose stages are not sealed are left out."""
    summary: dict[str, Any] = {"model": model, "corpus": corpus, "home": str(lineage.store.home.root)}
    summary["documents"] = _documents(lineage, corpus)
    summary["tokens"] = _tokens(lineage, corpus)
    summary["training"] = _training(lineage, model)
    summary["evaluation"] = _evaluation(lineage, model)
    decision = _one(lineage, model, "release_decision")
    if decision is not None:
        summary["release"] = dict(decision.counts)
    package, registered = _one(lineage, model, "model_package"), _one(lineage, model, "registered_model")
    if package is not None:
        summary["model_folder"] = str(lineage.store.read(package) / "model")
    if registered is not None:
        summary["registered"] = dict(registered.counts)
    audit = _one(lineage, model, "audit_report")
    if audit is not None:
        summary["audit_page"] = str(lineage.store.read(audit) / "audit.html")
    summary["commands"] = {"chat": f"forge chat {model}", "ui": "forge ui", "trace": f"forge trace {model}"}
    summary["fingerprints"] = {
        str(unit.key): lineage.fingerprint(unit)
        for stage in lineage.stages
        if stage.name.owner in (model, corpus)
        for unit in lineage.units(stage)
        if lineage.record(unit) is not None
    }
    return summary


def _records(lineage: Lineage, owner: str, stage: str) -> list[Record]:
    found = lineage.by_name.get(StageName(owner, stage))
    units = lineage.units(found) if found is not None else []
    return [record for unit in units if (record := lineage.record(unit)) is not None]


def _one(lineage: Lineage, owner: str, stage: str) -> Record | None:
    records = _records(lineage, owner, stage)
    return records[0] if records else None


def _total(records: Iterable[Record], count: str) -> int:
    return sum(int(record.counts.get(count) or 0) for record in records)


def _documents(lineage: Lineage, corpus: str) -> dict[str, Any]:
    landed = _records(lineage, corpus, "landing_files")
    read = _records(lineage, corpus, "documents")
    kept = _records(lineage, corpus, "training_documents")
    return {
        "batches": len(landed),
        "files": _total(landed, "files"),
        "in": _total(read, "documents_kept"),
        "kept": _total(kept, "documents_kept"),
        "quarantined": _total(read, "files_quarantined"),
        "dropped": _drops(lineage, corpus),
    }


def _drops(lineage: Lineage, corpus: str) -> dict[str, int]:
    """Dropped documents by step and rule, most frequent first."""
    counted: dict[str, int] = {}
    for stage in ("curated_documents", "unique_documents", "training_documents"):
        for record in _records(lineage, corpus, stage):
            decisions = pq.read_table(
                lineage.store.read(record) / "decisions.parquet",
                columns=["step", "rule"],
                filters=[("action", "=", "drop")],
            )
            for row in decisions.to_pylist():
                name = f"{row['step']}: {row['rule']}"
                counted[name] = counted.get(name, 0) + 1
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _tokens(lineage: Lineage, corpus: str) -> dict[str, Any]:
    shards = _records(lineage, corpus, "token_shards")
    return {
        name: _total(shards, name) for name in ("tokens", "tokens_train", "tokens_validation", "tokens_test", "bytes")
    }


def _training(lineage: Lineage, model: str) -> dict[str, dict[str, Any]]:
    records = {stage: _one(lineage, model, stage) for stage in EVALUATIONS}
    return {
        stage: {**record.counts, "seconds": round(record.seconds, 1)}
        for stage, record in records.items()
        if record is not None
    }


def _evaluation(lineage: Lineage, model: str) -> dict[str, list[dict[str, Any]]]:
    """The headline figures after each training stage."""
    found = {}
    for stage, evaluation in EVALUATIONS.items():
        record = _one(lineage, model, evaluation)
        if record is not None:
            rows = pq.read_table(lineage.store.read(record) / "results.parquet").to_pylist()
            found[stage] = [row for row in rows if not row["detail"]]
    return found
