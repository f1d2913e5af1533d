"""An artifact as Dagster shows it: figures, tables and plots on the asset page."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import dagster as dg

from forge_pipeline.reporting import Check, Outcome, Plot, Table
from forge_pipeline.storage import Record


def artifact_metadata(record: Record, outcome: Outcome, path: str, *, made_now: bool) -> dict[str, dg.MetadataValue]:
    """The metadata of one materialization."""
    metadata: dict[str, dg.MetadataValue] = {
        "fingerprint": dg.MetadataValue.text(record.fingerprint),
        "artifact": dg.MetadataValue.path(path),
        "made in this run": dg.MetadataValue.bool(made_now),
        "seconds": dg.MetadataValue.float(round(record.seconds, 2)),
    }
    for name, value in outcome.counts.items():
        if isinstance(value, bool):
            metadata[name] = dg.MetadataValue.bool(value)
        elif isinstance(value, int):
            metadata[name] = dg.MetadataValue.int(value)
        elif isinstance(value, float):
            metadata[name] = dg.MetadataValue.float(value)
        elif value is not None:
            metadata[name] = dg.MetadataValue.text(value)
    for plot in outcome.plots:
        metadata[plot.title] = plot_value(plot)
    for table in outcome.tables:
        if table.rows:
            metadata[table.title] = table_value(table)
    return metadata


def plot_value(plot: Plot) -> dg.MarkdownMetadataValue:
    """A picture inside Markdown: the one form in which Dagster shows images without a file server."""
    from forge_pipeline.reporting.charts import render

    picture = base64.b64encode(render(plot, "png")).decode("ascii")
    return dg.MetadataValue.md(f"![{plot.title}](data:image/png;base64,{picture})")


def table_value(table: Table) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {column: "" if value is None else value for column, value in zip(table.columns, row, strict=True)}
        )
        for row in table.rows
    ]
    columns = [dg.TableColumn(column, _column_type(table, index)) for index, column in enumerate(table.columns)]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def _column_type(table: Table, index: int) -> str:
    kinds = {type(row[index]) for row in table.rows if row[index] is not None}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int"
    return "float" if kinds and kinds <= {int, float} else "string"


def check_result(check: Check, asset: dg.AssetKey) -> dg.AssetCheckResult:
    figures: Mapping[str, float | None] = {"value": check.value, "threshold": check.threshold}
    return dg.AssetCheckResult(
        passed=check.passed,
        check_name=check.name,
        asset_key=asset,
        description=check.description,
        metadata={name: figure for name, figure in figures.items() if figure is not None},
    )
