"""What a corpus holds and what was left out, by source, format, language, licence, owner and purpose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.settings import InventorySettings
from forge_pipeline.reporting import Outcome, Plot, Progress, Table

CODE_VERSION = "1"
INVENTORY = "inventory.parquet"
REASONS = "reasons.parquet"
# ``items`` are files at the stage "landing_files", documents at the others.
INVENTORY_SCHEMA = tables.schema_of(
    stage=pa.string(),
    dimension=pa.string(),
    value=pa.string(),
    items=pa.int64(),
    bytes=pa.int64(),
)
REASONS_SCHEMA = tables.schema_of(
    stage=pa.string(),
    action=pa.string(),
    rule=pa.string(),
    decisions=pa.int64(),
)
_DIMENSIONS = ("source", "format", "language", "licence", "owner", "purpose", "split")


def data_inventory(
    settings: InventorySettings,
    landing: Sequence[Path],
    documents: Sequence[Path],
    curated: Sequence[Path],
    unique: Sequence[Path],
    training: Sequence[Path],
    output: Path,
    progress: Progress,
) -> Outcome:
    """Count files and documents of all batches after each stage; write `inventory.parquet` and `reasons.parquet`.

    Each list holds the parts of one stage in batch order.
    """
    stages: Mapping[str, tuple[str, Sequence[Path]]] = {
        "landing_files": (tables.FILES, landing),
        "documents": (tables.DOCUMENTS, documents),
        "curated_documents": (tables.DOCUMENTS, curated),
        "unique_documents": (tables.DOCUMENTS, unique),
        "training_documents": (tables.DOCUMENTS, training),
    }
    rows: list[dict[str, Any]] = []
    totals: dict[str, tuple[int, int]] = {}
    with progress.task("count documents", len(stages), "stages") as task:
        for stage, (name, parts) in stages.items():
            table = _dimensions(name, parts)
            totals[stage] = (table.num_rows, sum(tables.column(table, "bytes")))
            for dimension in table.column_names[:-1]:
                rows.extend({"stage": stage, "dimension": dimension, **row} for row in _grouped(table, dimension))
            task.advance()
    tables.write_table(output / INVENTORY, INVENTORY_SCHEMA, rows)
    reasons = _reasons(
        documents, {"curated_documents": curated, "unique_documents": unique, "training_documents": training}
    )
    tables.write_table(output / REASONS, REASONS_SCHEMA, reasons)
    return _outcome(settings, rows, reasons, totals)


def _dimensions(name: str, parts: Sequence[Path]) -> pa.Table:
    """The columns to count by that the table has, and bytes last, of all parts."""
    read = []
    for part in parts:
        table = tables.read_table(part, name)
        columns = [column for column in _DIMENSIONS if column in table.column_names]
        read.append(table.select([*columns, "bytes"]))
    return pa.concat_tables(read) if read else pa.table({"bytes": pa.array([], pa.int64())})


def _grouped(table: pa.Table, dimension: str) -> list[dict[str, Any]]:
    items: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for value, size in zip(tables.column(table, dimension), tables.column(table, "bytes"), strict=True):
        items[value] += 1
        sizes[value] += size
    ordered = sorted(items, key=lambda value: (-items[value], value))
    return [{"value": value, "items": items[value], "bytes": sizes[value]} for value in ordered]


def _reasons(documents: Sequence[Path], decided: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for part in documents:
        for reason in tables.column(tables.read_table(part, tables.QUARANTINE, ["reason"]), "reason"):
            counts["documents", "quarantine", reason.split(":", 1)[0]] += 1
    for stage, parts in decided.items():
        for part in parts:
            table = tables.read_table(part, tables.DECISIONS, ["action", "rule"])
            counts.update(
                (stage, action, rule)
                for action, rule in zip(tables.column(table, "action"), tables.column(table, "rule"), strict=True)
            )
    order = ["documents", *decided]
    return [
        {"stage": stage, "action": action, "rule": rule, "decisions": count}
        for (stage, action, rule), count in sorted(
            counts.items(), key=lambda entry: (order.index(entry[0][0]), entry[0][1], -entry[1], entry[0][2])
        )
    ]


def _outcome(
    settings: InventorySettings,
    rows: Sequence[Mapping[str, Any]],
    reasons: Sequence[Mapping[str, Any]],
    totals: Mapping[str, tuple[int, int]],
) -> Outcome:
    counts: dict[str, Any] = {}
    for stage, (items, size) in totals.items():
        counts[f"{stage}_items"], counts[f"{stage}_bytes"] = items, size
    shown = [
        Table(
            f"Documents for training and evaluation, by {dimension}",
            (dimension, "documents", "bytes"),
            tuple(
                (row["value"], row["items"], row["bytes"])
                for row in rows
                if row["stage"] == "training_documents" and row["dimension"] == dimension
            )[: settings.rows_shown],
        )
        for dimension in _DIMENSIONS
    ]
    stages = list(totals)
    return Outcome(
        counts=counts,
        tables=[
            Table(
                "After each stage",
                ("stage", "files or documents", "bytes"),
                tuple((stage, *totals[stage]) for stage in stages),
            ),
            Table.of("Decisions, by stage and rule", list(reasons)[: settings.rows_shown]),
            *shown,
        ],
        plots=[
            Plot(
                "Bytes after each stage",
                "bar",
                "stage",
                "bytes",
                {"bytes": (stages, [float(totals[stage][1]) for stage in stages])},
            )
        ],
    )
