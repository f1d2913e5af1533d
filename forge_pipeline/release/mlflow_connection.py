"""How the release reaches MLflow: imported late (it takes seconds), silent, and without a network of its own."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forge_pipeline.errors import StorageError
from forge_pipeline.release.facts import flatten

SQLITE = "sqlite:///"
# Read when mlflow is imported. Git is asked for a commit otherwise, on every run that is made.
FIXED_VARIABLES = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}
# Limits of MLflow's own validation (mlflow.utils.validation).
LONGEST_VALUE = 6000
LONGEST_KEY = 250
METRICS_PER_BATCH = 1000
PARAMETERS_PER_BATCH = 100
FINGERPRINT_TAG = "forge.fingerprint"
_BAD_KEY_CHARACTERS = re.compile(r"[^\w./: -]")


def connect(tracking_uri: str) -> Any:
    """An `MlflowClient` for runs and registry at ``tracking_uri``; a SQLite database is made if it is missing.

    Takes about five seconds for the import and four for a new database. Raises StorageError if it cannot be
    reached or made.
    """
    for name, value in FIXED_VARIABLES.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        database = database_file(tracking_uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        with registry_lock(tracking_uri):
            client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise StorageError(
            f"cannot use MLflow: {error}",
            where=tracking_uri,
            fix="check the address; a database written by a newer MLflow needs that version or another home folder",
        ) from error
    return client


def database_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite tracking URI, None for a server."""
    return Path(tracking_uri.removeprefix(SQLITE)) if tracking_uri.startswith(SQLITE) else None


@contextmanager
def registry_lock(tracking_uri: str) -> Iterator[None]:
    """Held while a local registry is searched and then written, so that two processes cannot register twice.

    A tracking server has no such lock: there, only one process at a time may register a model.
    """
    database = database_file(tracking_uri)
    if database is None:
        yield
        return
    with database.with_name(f"{database.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def experiment_id(client: Any, tracking_uri: str, name: str) -> str:
    """The experiment of this name, made if missing; beside a SQLite database its files lie in `artifacts/`."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = database_file(tracking_uri)
        location = None if database is None else (database.parent / "artifacts" / name).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            # Another process made it first; anything else shows again here.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def key_of(name: str) -> str:
    """``name`` as MLflow accepts it for a metric, parameter or tag."""
    return _BAD_KEY_CHARACTERS.sub("_", name)[:LONGEST_KEY]


def text_of(value: object) -> str:
    """``value`` as a parameter or tag; what is too long for MLflow is cut, and says so."""
    text = str(value)
    if len(text) <= LONGEST_VALUE:
        return text
    note = f" … ({len(text)} characters)"
    return text[: LONGEST_VALUE - len(note)] + note


def log_parameters(client: Any, run_id: str, parameters: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key_of(name), text_of(value)) for name, value in flatten(parameters).items()]
    for start in range(0, len(entries), PARAMETERS_PER_BATCH):
        client.log_batch(run_id, params=entries[start : start + PARAMETERS_PER_BATCH])


def log_points(client: Any, run_id: str, points: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
    """Log (milliseconds, step, values) points in batches."""
    from mlflow.entities import Metric

    entries = [
        Metric(key_of(name), float(value), milliseconds, step)
        for milliseconds, step, values in points
        for name, value in values.items()
    ]
    for start in range(0, len(entries), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=entries[start : start + METRICS_PER_BATCH])


def find_run(client: Any, experiment: str, fingerprint: str, *, finished: bool) -> Any | None:
    """The newest run of the artifact with this fingerprint, or None. ``finished``: only completed ones."""
    condition = f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'" + (
        " and attributes.status = 'FINISHED'" if finished else ""
    )
    runs = client.search_runs(
        [experiment], filter_string=condition, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0] if runs else None
