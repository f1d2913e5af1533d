"""Training metrics in MLflow while training runs, without ever holding the training up.

Everything that touches MLflow (its import, its database) happens in one thread of its own; `log` only appends
to a list. What goes wrong there is told at the end: a lost plot is no reason to lose a model, and registration
logs the run again from the artifact's own metrics.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from forge_pipeline.errors import ForgeError
from forge_pipeline.release.mlflow_connection import (
    FINGERPRINT_TAG,
    connect,
    experiment_id,
    find_run,
    key_of,
    log_parameters,
    log_points,
    text_of,
)

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class TrackedRun:
    """What became of a run in MLflow: its id, and what went wrong, if anything."""

    run_id: str | None
    problem: str | None


class RunTracker:
    """One MLflow run, logged live. Use: `start`, `log` for each step, `finish`."""

    def __init__(self, tracking_uri: str, experiment: str, *, flush_seconds: float = 3.0) -> None:
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._flush_seconds = flush_seconds
        self._points: list[tuple[int, int, dict[str, float]]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._status: RunStatus = "FINISHED"
        self._run_id: str | None = None
        self._problem: str | None = None
        self._thread: threading.Thread | None = None

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin a run; returns at once.

        With a tag `forge.fingerprint`, an unfinished run of the same artifact is continued (training that
        resumes from a checkpoint), and steps it already holds are not logged again.
        """
        if self._thread is not None:
            raise RuntimeError("a RunTracker tracks one run")
        self._thread = threading.Thread(
            target=self._work, args=(name, dict(parameters), dict(tags)), name=f"mlflow {name}", daemon=True
        )
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of one step; returns at once."""
        with self._lock:
            self._points.append((int(time.time() * 1000), step, dict(values)))

    def finish(self, status: RunStatus = "FINISHED", *, timeout_seconds: float = 60.0) -> TrackedRun:
        """Log what is left and end the run with ``status``; never raises for what went wrong in MLflow."""
        if self._thread is None:
            return TrackedRun(None, "the run was never started")
        self._status = status
        self._stopping.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            return TrackedRun(self._run_id, f"MLflow did not answer within {timeout_seconds:g} s")
        return TrackedRun(self._run_id, self._problem)

    # -- in the thread -------------------------------------------------------------------------------------

    def _work(self, name: str, parameters: dict[str, Any], tags: dict[str, str]) -> None:
        try:
            client = connect(self._tracking_uri)
        except ForgeError as error:
            self._problem = error.problem
            return
        from mlflow.exceptions import MlflowException

        try:
            logged = self._open_run(client, name, parameters, tags)
            ended = False
            pending: list[tuple[int, int, Mapping[str, float]]] = []
            while not ended:
                ended = self._stopping.wait(self._flush_seconds)
                with self._lock:
                    points, self._points = self._points, []
                pending += _not_yet(points, logged)
                try:
                    log_points(client, self._run_id or "", pending)
                except MlflowException:
                    # A database that is busy for a moment: the same points again with the next, if there is a next.
                    if ended:
                        raise
                else:
                    pending = []
            client.set_terminated(self._run_id, status=self._status)
        except MlflowException as error:
            self._problem = str(error)

    def _open_run(self, client: Any, name: str, parameters: dict[str, Any], tags: dict[str, str]) -> dict[str, int]:
        """Open or continue the run; returns the last step already logged, by metric."""
        experiment = experiment_id(client, self._tracking_uri, self._experiment)
        fingerprint = tags.get(FINGERPRINT_TAG)
        earlier = find_run(client, experiment, fingerprint, finished=False) if fingerprint else None
        if earlier is not None and earlier.info.status != "FINISHED":
            self._run_id = str(earlier.info.run_id)
            client.update_run(self._run_id, status="RUNNING")
            for key, value in tags.items():
                client.set_tag(self._run_id, key_of(key), text_of(value))
            histories = {key: client.get_metric_history(self._run_id, key) for key in earlier.data.metrics}
            return {key: max(point.step for point in points) for key, points in histories.items()}
        run = client.create_run(
            experiment, run_name=name, tags={key_of(key): text_of(value) for key, value in tags.items()}
        )
        self._run_id = str(run.info.run_id)
        log_parameters(client, self._run_id, parameters)
        return {}


def _not_yet(
    points: list[tuple[int, int, dict[str, float]]], logged: Mapping[str, int]
) -> list[tuple[int, int, Mapping[str, float]]]:
    return [
        (at, step, {name: value for name, value in values.items() if step > logged.get(key_of(name), -1)})
        for at, step, values in points
    ]
