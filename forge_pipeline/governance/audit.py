"""The audit page: what one model was made from, what was decided on the way, and how it was judged.

One HTML file without scripts or links to other hosts; it can be mailed, printed and archived. Every figure comes
from sealed records and tables.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from forge_pipeline.governance import audit_content as content
from forge_pipeline.governance.lineage_tables import define_documents, define_training
from forge_pipeline.governance.lineage_view import LineageView
from forge_pipeline.governance.queries import Tables
from forge_pipeline.governance.settings import AuditSettings
from forge_pipeline.governance.trace import documents_of_model
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Table
from forge_pipeline.reporting.charts import render

CODE_VERSION = "1"
PAGE_FILE = "audit.html"
DOCUMENTS_FILE = "documents.parquet"
TEMPLATE = Path(__file__).with_name("audit.html.j2")
TOP_COLUMNS = ("path", "part", "title", "source", "licence", "tokens", "tokens_seen", "epochs", "examples", "doc_id")


def write_audit_report(
    settings: AuditSettings, model: str, view: LineageView, output: Path, progress: Progress
) -> Outcome:
    """Write `audit.html`, and `documents.parquet` with every document that trained the model.

    ``view`` is the lineage of the model's furthest artifacts. An artifact whose files no longer have their sealed
    digests is named on the page and fails a check; it raises nothing, as the report is what tells of it.
    """
    with progress.task("reading the lineage's tables"):
        documents = documents_of_model(view)
        pq.write_table(documents, output / DOCUMENTS_FILE, compression="zstd")
        with Tables() as tables:
            define_documents(tables, view)
            define_training(tables, view)
            funnel, corpus = content.corpus_tables(tables, settings)
    with progress.task("comparing files with their digests"):
        artifacts = content.artifact_lines(view, settings.verify_files)
    altered = [line for line in artifacts if line.problems]
    evaluations, evaluation_plots = content.evaluation_content(view)
    decision = content.release_decision(view)
    top = documents.slice(0, settings.top_documents).select(list(TOP_COLUMNS)).to_pylist()
    with progress.task("drawing the page"):
        page = (
            _environment()
            .get_template(TEMPLATE.name)
            .render(
                model=model,
                corpus_name=content.corpus_of(view),
                lineage=content.lineage_sentence(view),
                parameters=content.parameters_of(view),
                decision=decision,
                registration=content.registration(view),
                funnel=funnel,
                corpus=corpus,
                top=Table.of("Documents seen most", top),
                documents=documents.num_rows,
                documents_file=DOCUMENTS_FILE,
                tokens_seen=sum(documents["tokens_seen"].to_pylist()),
                stages=content.training_stages(view),
                reward=content.reward_audit(view),
                evaluations=evaluations,
                evaluation_plots=evaluation_plots,
                artifacts=artifacts,
                verified=settings.verify_files,
                altered=altered,
                versions=content.package_versions(view),
            )
        )
    (output / PAGE_FILE).write_text(page, encoding="utf-8")
    return _outcome(settings, page, funnel, corpus, artifacts, altered, documents.num_rows)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=_cell, numeric=_numeric_columns, chart=_chart, took=_duration, size=_size)
    return environment


def _cell(value: object) -> str:
    """A value as people read it; escaping is the template's."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def _numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers, so that they stand in line."""
    return [
        any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column)
        and not any(isinstance(value, str) and value for value in column)
        for column in zip(*table.rows, strict=True)
    ]


def _chart(plot: Plot) -> str:
    """A picture inside the page: as an image, what a title says cannot become markup."""
    return f"data:image/svg+xml;base64,{base64.b64encode(render(plot, 'svg')).decode('ascii')}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _outcome(
    settings: AuditSettings,
    page: str,
    funnel: list[content.Step],
    corpus: dict[str, Table],
    artifacts: list[content.ArtifactLine],
    altered: list[content.ArtifactLine],
    documents: int,
) -> Outcome:
    counts: dict[str, Any] = {
        "artifacts": len(artifacts),
        "files": sum(len(line.record.files) for line in artifacts),
        "altered_artifacts": len(altered) if settings.verify_files else None,
        "documents": documents,
        "page_bytes": len(page.encode()),
    }
    checks = []
    if settings.verify_files:
        checks.append(
            Check(
                "files_have_their_sealed_digests",
                not altered,
                "every file of every artifact behind the model was read again and has its sealed SHA-256",
                value=len(altered),
                threshold=0,
            )
        )
    steps = Table.of(
        "From files to training", [{"step": step.name, "count": step.count, "": step.note} for step in funnel]
    )
    return Outcome(counts=counts, checks=checks, tables=[steps, corpus["decisions"], corpus["duplicates"]])
