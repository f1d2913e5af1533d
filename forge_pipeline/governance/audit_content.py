"""What the audit page says, gathered from records and stored tables. Laying it out is the template's work."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_pipeline.errors import StorageError
from forge_pipeline.evaluation.results import RESULTS
from forge_pipeline.governance.facts import source_flow
from forge_pipeline.governance.lineage_view import CORPUS_STAGES, METRICS_FILE, LineageView, has_file, is_trained_model
from forge_pipeline.governance.queries import Tables
from forge_pipeline.governance.settings import AuditSettings
from forge_pipeline.release.decision import DECISION_FILE, read_decision
from forge_pipeline.release.facts import flatten
from forge_pipeline.release.registry import REGISTRATION_FILE
from forge_pipeline.release.results import interval_text, read_results
from forge_pipeline.reporting import Check, Outcome, Plot, Scalar, Table
from forge_pipeline.storage import Record

REWARD_AUDIT = "reward_audit"
PLOTS_PER_STAGE = 2
MOST_METRICS_DRAWN = 4


@dataclass(frozen=True)
class Step:
    """One bar of the way from files to training documents."""

    name: str
    count: int
    share: float
    note: str


@dataclass(frozen=True)
class TrainingStage:
    """One training stage as the page shows it."""

    name: str
    owner: str
    fingerprint: str
    seconds: float
    started_from: str
    figures: Table
    parameters: Table
    checks: Sequence[Check]
    plots: Sequence[Plot]


@dataclass(frozen=True)
class ArtifactLine:
    """One artifact in the list of fingerprints. ``problems`` is None if its files were not read again."""

    record: Record
    problems: Sequence[str] | None

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.record.files)


def corpus_tables(tables: Tables, settings: AuditSettings) -> tuple[list[Step], dict[str, Table]]:
    """The funnel, and the tables of sources, decisions, quarantine, duplicates and tokens."""
    flow = source_flow(tables)
    columns = ("source", "licence", "owner", "purpose", "landed", "quarantined", "documents", "curated", "training")
    sources = [{name: row[name] for name in (*columns, "tokens", "tokens_seen")} for row in flow]
    renamed = {
        "landed": "files",
        "curated": "after curation",
        "training": "in training set",
        "tokens_seen": "tokens seen",
    }
    found = {
        "sources": Table.of(
            "Sources", [{renamed.get(k, k): v or _unstated(k) for k, v in row.items()} for row in sources]
        ),
        "decisions": _table(
            tables,
            "Decisions by rule",
            "SELECT stage, step, rule, action, count(*) AS decisions, count(DISTINCT doc_id) AS documents "
            "FROM decisions GROUP BY ALL ORDER BY action, decisions DESC, stage, step, rule LIMIT $limit",
            limit=settings.top_rules,
        ),
        "quarantine": _table(
            tables,
            "Files in quarantine",
            'SELECT reason, count(*) AS files, min(path) AS "for example" FROM quarantine '
            "GROUP BY reason ORDER BY files DESC, reason LIMIT 30",
        ),
        "duplicates": _table(
            tables,
            "Duplicates",
            "SELECT kind, kept, count(*) AS documents, count(DISTINCT cluster_id) AS clusters, "
            'round(avg(similarity), 3) AS "mean similarity" FROM membership '
            "GROUP BY kind, kept ORDER BY kept DESC, kind",
        ),
        "splits": _table(
            tables,
            "Splits",
            "SELECT split, count(*) AS documents, sum(length)::BIGINT AS tokens, sum(bytes)::BIGINT AS bytes "
            "FROM token_index GROUP BY split ORDER BY documents DESC, split",
        ),
    }
    for column in ("format", "language"):
        found[column] = _table(
            tables,
            f"Tokens by {column}",
            f"SELECT {column}, count(*) AS documents, sum(length)::BIGINT AS tokens, "
            "round(sum(bytes) / sum(length), 2) AS \"bytes per token\" FROM token_index WHERE split = 'train' "
            f"GROUP BY {column} ORDER BY tokens DESC, {column} LIMIT 30",
        )
    return _funnel(tables), found


def training_stages(view: LineageView) -> list[TrainingStage]:
    stages = []
    for record in view.trained_models():
        outcome = view.store.outcome(record)
        before = [str(source.key) for source in view.inputs(record) if is_trained_model(source)]
        stages.append(
            TrainingStage(
                name=record.key.stage,
                owner=record.key.owner,
                fingerprint=record.fingerprint,
                seconds=record.seconds,
                started_from=", ".join(before) or "random weights",
                figures=_pairs("Figures", "figure", record.counts),
                parameters=_pairs("Parameters", "setting", flatten(record.parameters)),
                checks=outcome.checks,
                plots=outcome.plots[:PLOTS_PER_STAGE] or _metric_plots(view.store.read(record) / METRICS_FILE),
            )
        )
    return stages


def evaluation_content(view: LineageView) -> tuple[Table, list[Plot]]:
    """Headline results, a row for each metric and a column for each evaluated stage, and a chart of each metric."""
    cells: dict[str, dict[str, str]] = {}
    values: dict[str, tuple[list[Any], list[float]]] = {}
    stages: dict[str, None] = {}
    for record in view.with_file(RESULTS):
        evaluated = [source.key.stage for source in view.inputs(record) if is_trained_model(source)]
        stage = evaluated[-1] if evaluated else record.key.stage
        stages[stage] = None
        for result in read_results(view.store.read(record), stage):
            if result.is_headline:
                interval = interval_text(result.low, result.high)
                text = f"{result.value:.4g} ({interval}; {result.n:,} {result.unit})"
                cells.setdefault(result.metric, {})[stage] = text
                x, y = values.setdefault(result.metric, ([], []))
                x.append(stage)
                y.append(result.value)
    rows: list[dict[str, Scalar]] = [
        {"metric": metric, **{stage: by_stage.get(stage, "not measured") for stage in stages}}
        for metric, by_stage in cells.items()
    ]
    plots = [
        Plot(metric, "bar", "after", metric, {metric: values[metric]})
        for metric in list(values)[:MOST_METRICS_DRAWN]
        if len(values[metric][0]) > 1
    ]
    return Table.of("Evaluations", rows), plots


def reward_audit(view: LineageView) -> Outcome | None:
    records = view.stage(REWARD_AUDIT)
    return view.store.outcome(records[-1]) if records else None


def release_decision(view: LineageView) -> dict[str, Any] | None:
    records = view.with_file(DECISION_FILE)
    return read_decision(view.store.read(records[-1])) if records else None


def registration(view: LineageView) -> dict[str, Any] | None:
    """The body of registration.json, if the model is registered."""
    records = view.with_file(REGISTRATION_FILE)
    if not records:
        return None
    path = view.store.read(records[-1]) / REGISTRATION_FILE
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read a registration: {error}", where=str(path)) from error
    return body


def artifact_lines(view: LineageView, verify: bool) -> list[ArtifactLine]:
    return [ArtifactLine(record, view.store.verify(record) if verify else None) for record in view.records]


def package_versions(view: LineageView) -> Table:
    """Which release of each package the artifacts were made with; more than one if that changed in between."""
    found: dict[str, set[str]] = {}
    for record in view.records:
        for package, version in record.versions.items():
            found.setdefault(package, set()).add(version)
    return Table.of(
        "Package versions",
        [{"package": package, "versions": ", ".join(sorted(found[package]))} for package in sorted(found)],
    )


def lineage_sentence(view: LineageView) -> str:
    """The trained models in order, as one line."""
    return " → ".join(["random weights", *(record.key.stage for record in view.trained_models())])


def corpus_of(view: LineageView) -> str:
    return ", ".join(sorted({record.key.owner for record in view.records if record.key.stage in CORPUS_STAGES}))


def parameters_of(view: LineageView) -> int | None:
    """The number of weights, as the package says; None before there is one."""
    for record in reversed(view.records):
        if has_file(record, "package.json"):
            return int(record.counts["parameters"])
    return None


def _funnel(tables: Tables) -> list[Step]:
    count = "SELECT count(*) AS n FROM "
    n = {
        name: int(tables.row(count + name)["n"])
        for name in ("landing", "quarantine", "documents", "curated", "membership", "training_documents")
    }
    kept = int(tables.row(count + "membership WHERE kept")["n"])
    kinds = tables.rows("SELECT kind, count(*) AS n FROM membership WHERE NOT kept GROUP BY kind ORDER BY kind")
    train = int(tables.row(count + "training_documents WHERE split = 'train'")["n"])
    seen = int(tables.row("SELECT count(DISTINCT doc_id) AS n FROM exposure")["n"])
    duplicates = ", ".join(f"{row['n']:,} {row['kind']}" for row in kinds)
    steps = [
        ("Files landed", n["landing"], ""),
        ("Documents read", n["documents"], f"files in quarantine: {n['quarantine']:,}"),
        ("After curation", n["curated"], f"dropped by rules: {n['documents'] - n['curated']:,}"),
        ("Unique", kept, f"duplicates dropped: {duplicates or 0}"),
        ("Training set", n["training_documents"], f"dropped by decontamination: {kept - n['training_documents']:,}"),
        ("Split for training", train, f"held out for validation and test: {n['training_documents'] - train:,}"),
        ("Seen in pre-training", seen, ""),
    ]
    largest = max((size for _, size, _ in steps), default=0) or 1
    return [Step(name, size, size / largest, note) for name, size, note in steps]


def _table(tables: Tables, title: str, sql: str, **values: Any) -> Table:
    result = tables.table(sql, **values)
    names = tuple(result.column_names)
    return Table(title, names, tuple(tuple(row[name] for name in names) for row in result.to_pylist()))


def _pairs(title: str, name: str, values: Mapping[str, Scalar]) -> Table:
    return Table(title, (name, "value"), tuple(values.items()))


def _unstated(column: str) -> Scalar:
    return "not stated" if column in ("licence", "owner", "purpose") else 0


def _metric_plots(path: Path) -> list[Plot]:
    """Losses and rewards over steps, from the metrics of a stage that drew no chart of its own."""
    series: dict[str, tuple[list[Any], list[float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if any(word in name for word in ("loss", "reward", "success")) and isinstance(value, (int, float)):
                x, y = series.setdefault(name, ([], []))
                x.append(entry["step"])
                y.append(float(value))
    return [
        Plot(word.capitalize(), "line", "step", word, chosen)
        for word in ("loss", "reward", "success")
        if (chosen := {name: points for name, points in series.items() if word in name})
    ]
