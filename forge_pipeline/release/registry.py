"""Runs and model versions in MLflow. A version refers to the sealed package; nothing is uploaded a second time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forge_pipeline.errors import StorageError
from forge_pipeline.release.decision import read_decision
from forge_pipeline.release.manifest import verify_manifest
from forge_pipeline.release.mlflow_connection import (
    FINGERPRINT_TAG,
    connect,
    experiment_id,
    find_run,
    key_of,
    log_parameters,
    log_points,
    registry_lock,
    text_of,
)
from forge_pipeline.release.package import MODEL_FOLDER, read_package
from forge_pipeline.release.results import Result, read_evaluations
from forge_pipeline.release.settings import ReleaseSettings
from forge_pipeline.reporting import Check, Outcome, Progress, Scalar, Table

CODE_VERSION = "1"
REGISTRATION_FILE = "registration.json"
METRICS_FILE = "metrics.jsonl"
DIGEST_TAG = "forge.package_digest"


@dataclass(frozen=True)
class TrainingHistory:
    """One training stage as MLflow is to show it. ``folder`` is the model artifact, with its `metrics.jsonl`;
    ``tags`` may hold the id of the Dagster run, versions and the like."""

    stage: str
    folder: Path
    fingerprint: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def register_model(
    settings: ReleaseSettings,
    package: Path,
    decision: Path,
    histories: Sequence[TrainingHistory],
    tracking_uri: str,
    output: Path,
    progress: Progress,
    *,
    source: str | None = None,
) -> Outcome:
    """Log one run for each training stage and register the package as a model version.

    The package's files are verified against its own list first. A stage whose run was tracked live, and a package
    that was registered before, are found by fingerprint and digest and not made again. The champion alias moves
    to this version if ``decision`` passed; else the challenger alias does, and the champion stays where it is.

    ``source`` is the URI to register, where the package is served from a remote store; else it is the local folder's.
    Writes `registration.json`. Raises StorageError if the package was altered or MLflow cannot be used.
    """
    folder = package / MODEL_FOLDER
    digest = verify_manifest(folder)
    described = read_package(package)
    if described.get("digest") != digest:
        raise StorageError(
            f"the package's digest is {digest}, its package.json says {described.get('digest')}",
            where=str(folder),
            fix="remove the artifact's folder and run model_package again",
        )
    source = source or folder.resolve().as_uri()
    gate = read_decision(decision)
    evaluations = read_evaluations(decision)
    with progress.task("connecting to MLflow"):
        client = connect(tracking_uri)
    from mlflow.exceptions import MlflowException

    try:
        with registry_lock(tracking_uri):
            runs = _log_stages(client, settings, histories, evaluations, tracking_uri, progress)
            version, is_new = _version(client, settings, source, described, gate, runs)
            before = _alias_holder(client, settings.registered_model, settings.champion_alias)
            _move_alias(client, settings, version, gate["passed"])
            aliases = sorted(client.get_model_version(settings.registered_model, version).aliases)
            champion = _alias_holder(client, settings.registered_model, settings.champion_alias)
    except MlflowException as error:
        raise StorageError(
            f"MLflow refused the registration: {error}",
            where=tracking_uri,
            fix="a tracking server takes a version by reference only if it allows sources outside its own storage",
        ) from error
    progress.note(f"{settings.registered_model} version {version} {'registered' if is_new else 'was already there'}")
    body = {
        "registered_model": settings.registered_model,
        "version": version,
        "uri": f"models:/{settings.registered_model}/{version}",
        "source": source,
        "digest": digest,
        "aliases": aliases,
        "runs": runs,
    }
    (output / REGISTRATION_FILE).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return _outcome(body, gate, is_new, before, champion)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The logged steps of a model artifact, in order: objects with `step` and metric values."""
    path = folder / METRICS_FILE
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise StorageError(
            f"cannot read the training metrics: {error}", where=str(path), fix="run the training stage again"
        ) from error


def _log_stages(
    client: Any,
    settings: ReleaseSettings,
    histories: Sequence[TrainingHistory],
    evaluations: Sequence[Result],
    tracking_uri: str,
    progress: Progress,
) -> dict[str, str]:
    """Stage -> id of its finished run."""
    experiment = experiment_id(client, tracking_uri, settings.registered_model)
    runs = {}
    with progress.task("logging runs", total=len(histories), unit="runs") as task:
        for history in histories:
            found = find_run(client, experiment, history.fingerprint, finished=True)
            run_id = str(found.info.run_id) if found is not None else _log_run(client, experiment, history)
            _log_evaluation(client, run_id, history.stage, evaluations)
            runs[history.stage] = run_id
            task.advance()
    return runs


def _log_run(client: Any, experiment: str, history: TrainingHistory) -> str:
    steps = read_metrics(history.folder)
    tags = {**history.tags, FINGERPRINT_TAG: history.fingerprint, "forge.stage": history.stage}
    run = client.create_run(
        experiment,
        run_name=history.stage,
        tags={key_of(key): text_of(value) for key, value in tags.items()},
    )
    run_id = str(run.info.run_id)
    log_parameters(client, run_id, history.parameters)
    # One millisecond apart: the steps carry no time of their own, and MLflow orders equal times by chance.
    start = int(time.time() * 1000) - len(steps)
    points = [(start + index, int(entry["step"]), _numbers(entry)) for index, entry in enumerate(steps)]
    log_points(client, run_id, points)
    client.set_terminated(run_id)
    return run_id


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one logged step: a flag or a text beside them is no metric."""
    return {
        name: float(value)
        for name, value in entry.items()
        if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _log_evaluation(client: Any, run_id: str, stage: str, evaluations: Sequence[Result]) -> None:
    """The stage's held-out results, once for each value: a repeated registration adds no point."""
    values: dict[str, float] = {}
    for result in evaluations:
        if result.stage == stage and result.is_headline:
            values[f"held_out.{result.metric}"] = result.value
            if result.has_interval:
                values[f"held_out.{result.metric}.low"] = result.low
                values[f"held_out.{result.metric}.high"] = result.high
    known = client.get_run(run_id).data.metrics
    fresh = {name: value for name, value in values.items() if known.get(key_of(name)) != value}
    log_points(client, run_id, [(int(time.time() * 1000), 0, fresh)])


def _version(
    client: Any,
    settings: ReleaseSettings,
    source: str,
    described: Mapping[str, Any],
    gate: Mapping[str, Any],
    runs: Mapping[str, str],
) -> tuple[str, bool]:
    """The version of this package, made if missing; True if it is new."""
    from mlflow.exceptions import MlflowException

    name, digest = settings.registered_model, described["digest"]
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    found = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST_TAG}` = '{digest}'", max_results=1)
    if found:
        return str(found[0].version), False
    made = client.create_model_version(
        name,
        source=source,
        run_id=runs.get(gate["released_stage"]),
        tags={
            DIGEST_TAG: digest,
            "forge.stage": gate["released_stage"],
            "forge.gate": "passed" if gate["passed"] else "failed",
            "forge.parameters": str(described["parameters"]),
        },
        description=_description(source, gate),
    )
    return str(made.version), True


def _description(source: str, gate: Mapping[str, Any]) -> str:
    verdict = "passed" if gate["passed"] else "did not pass"
    return (
        f"Stage {gate['released_stage']}. The release gate {verdict}: {gate['reason']}. "
        f"By reference to the sealed package at {source}; its README.md is the model card."
    )


def _move_alias(client: Any, settings: ReleaseSettings, version: str, passed: bool) -> None:
    name = settings.registered_model
    if not passed:
        client.set_registered_model_alias(name, settings.challenger_alias, version)
        return
    client.set_registered_model_alias(name, settings.champion_alias, version)
    if _alias_holder(client, name, settings.challenger_alias) == version:
        client.delete_registered_model_alias(name, settings.challenger_alias)


def _alias_holder(client: Any, name: str, alias: str) -> str | None:
    holder = client.get_registered_model(name).aliases.get(alias)
    return None if holder is None else str(holder)


def _outcome(
    body: Mapping[str, Any], gate: Mapping[str, Any], is_new: bool, before: str | None, champion: str | None
) -> Outcome:
    rows: list[dict[str, Scalar]] = [
        {"what": "registered model", "value": body["registered_model"]},
        {"what": "version", "value": body["version"]},
        {"what": "aliases", "value": ", ".join(body["aliases"])},
        {"what": "gate", "value": gate["reason"]},
        {"what": "source", "value": body["source"]},
        {"what": "package digest", "value": body["digest"]},
        *({"what": f"run of {stage}", "value": run} for stage, run in body["runs"].items()),
    ]
    return Outcome(
        counts={
            "registered_model": body["registered_model"],
            "version": int(body["version"]),
            "new_version": is_new,
            "champion_version": None if champion is None else int(champion),
            "aliases": ", ".join(body["aliases"]),
            "runs": len(body["runs"]),
        },
        checks=[
            Check("package_is_unaltered", True, "every file of the package has the digest its list gives"),
            Check(
                "champion_follows_the_gate",
                champion == (body["version"] if gate["passed"] else before),
                "the champion is this version if the release gate passed, else the one it was before",
            ),
        ],
        tables=[Table.of("Registration", rows)],
    )
