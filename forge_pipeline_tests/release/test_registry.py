"""Versions and runs appear once, the champion follows the gate, and live metrics end in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forge_pipeline.errors import StorageError
from forge_pipeline.release.manifest import write_manifest
from forge_pipeline.release.mlflow_connection import connect
from forge_pipeline.release.registry import TrainingHistory, register_model
from forge_pipeline.release.tracking import RunTracker
from forge_pipeline.reporting import Outcome, SilentProgress
from forge_pipeline_tests.release.conftest import SETTINGS, MakeRelease, Release

FINGERPRINT = "e" * 64


def register(release: Release, tracking_uri: str, output: Path) -> tuple[Outcome, dict[str, Any]]:
    output.mkdir(exist_ok=True)
    history = TrainingHistory(
        "sft_model", release.model, FINGERPRINT, {"engine": {"steps": 5}}, {"dagster.run_id": "run 1"}
    )
    outcome = register_model(
        SETTINGS, release.package, release.decision, [history], tracking_uri, output, SilentProgress()
    )
    return outcome, json.loads((output / "registration.json").read_text())


def runs(tracking_uri: str) -> list[Any]:
    client = connect(tracking_uri)
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def test_a_release_becomes_a_version_and_a_run_with_its_history(
    make_release: MakeRelease, tracking_uri: str, tmp_path: Path
) -> None:
    release = make_release("first")
    outcome, body = register(release, tracking_uri, tmp_path / "out")
    assert all(check.passed for check in outcome.checks)
    assert (body["version"], body["aliases"]) == ("1", ["champion"])
    client = connect(tracking_uri)
    version = client.get_model_version_by_alias("assistant", "champion")
    assert version.source == (release.package / "model").as_uri()
    assert version.tags["forge.package_digest"] == body["digest"]
    run = client.get_run(body["runs"]["sft_model"])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"engine.steps": "5"}
    assert run.data.tags["dagster.run_id"] == "run 1"
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in losses] == [(step, 8.0 / step) for step in range(1, 6)]
    assert run.data.metrics["held_out.accuracy"] == 0.7
    assert version.run_id == run.info.run_id


def test_the_same_package_never_becomes_a_second_version(
    make_release: MakeRelease, tracking_uri: str, tmp_path: Path
) -> None:
    _, first = register(make_release("first"), tracking_uri, tmp_path / "out")
    # Made again elsewhere, byte for byte the same.
    outcome, second = register(make_release("again"), tracking_uri, tmp_path / "out")
    assert outcome.counts["new_version"] is False
    assert (second["version"], second["runs"]) == (first["version"], first["runs"])
    client = connect(tracking_uri)
    assert len(client.search_model_versions("name = 'assistant'")) == 1
    assert len(runs(tracking_uri)) == 1
    assert len(client.get_metric_history(first["runs"]["sft_model"], "held_out.accuracy")) == 1


def test_the_champion_stays_when_the_gate_does_not_pass(
    make_release: MakeRelease, tracking_uri: str, tmp_path: Path
) -> None:
    register(make_release("good"), tracking_uri, tmp_path / "out")
    outcome, body = register(make_release("worse", accuracy=0.3), tracking_uri, tmp_path / "out")
    assert (body["version"], body["aliases"]) == ("2", ["challenger"])
    assert outcome.counts["champion_version"] == 1
    outcome, body = register(make_release("better", accuracy=0.9), tracking_uri, tmp_path / "out")
    assert (body["version"], body["aliases"]) == ("3", ["champion"])
    aliases = connect(tracking_uri).get_registered_model("assistant").aliases
    assert {name: int(version) for name, version in aliases.items()} == {"champion": 3, "challenger": 2}


def test_a_first_release_that_fails_leaves_no_champion(
    make_release: MakeRelease, tracking_uri: str, tmp_path: Path
) -> None:
    outcome, body = register(make_release("first", accuracy=0.3), tracking_uri, tmp_path / "out")
    assert body["aliases"] == ["challenger"]
    assert outcome.counts["champion_version"] is None


@pytest.mark.parametrize("consistent", [False, True], ids=["one file altered", "its list of digests altered too"])
def test_an_altered_package_is_not_registered(
    make_release: MakeRelease, tracking_uri: str, tmp_path: Path, consistent: bool
) -> None:
    release = make_release("first")
    weights = release.package / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    if consistent:
        write_manifest(release.package / "model")
    with pytest.raises(StorageError):
        register(release, tracking_uri, tmp_path / "out")
    assert connect(tracking_uri).search_model_versions("name = 'assistant'") == []


def test_a_database_that_is_none_is_named(make_release: MakeRelease, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database" * 100)
    with pytest.raises(StorageError, match="cannot use MLflow") as caught:
        register(make_release("first"), f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "out")
    assert str(caught.value.where).endswith("mlflow.db")


def test_live_metrics_are_logged_and_the_run_is_not_made_again_at_registration(
    make_release: MakeRelease, tracking_uri: str, tmp_path: Path
) -> None:
    tracker = RunTracker(tracking_uri, "assistant", flush_seconds=0.05)
    tracker.start("sft_model", {"engine": {"steps": 5}}, {"forge.fingerprint": FINGERPRINT})
    for step in range(1, 6):
        tracker.log(step, {"loss": 8.0 / step, "loss/held out (%)": float("nan")})
    tracked = tracker.finish()
    assert tracked.problem is None
    client = connect(tracking_uri)
    points = client.get_metric_history(tracked.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, 8.0 / step) for step in range(1, 6)]
    _, body = register(make_release("first"), tracking_uri, tmp_path / "out")
    assert body["runs"] == {"sft_model": tracked.run_id}
    assert len(runs(tracking_uri)) == 1


def test_a_resumed_training_continues_its_run_without_logging_steps_twice(tracking_uri: str) -> None:
    tags = {"forge.fingerprint": FINGERPRINT}
    killed = RunTracker(tracking_uri, "assistant")
    killed.start("base_model", {"steps": 4}, tags)
    killed.log(1, {"loss": 8.0})
    killed.log(2, {"loss": 4.0})
    first = killed.finish("KILLED")
    resumed = RunTracker(tracking_uri, "assistant")
    resumed.start("base_model", {"steps": 4}, tags)
    for step, loss in ((2, 4.0), (3, 2.0)):
        resumed.log(step, {"loss": loss})
    second = resumed.finish()
    assert (second.problem, second.run_id) == (None, first.run_id)
    client = connect(tracking_uri)
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(first.run_id, "loss")] == [1, 2, 3]


def test_a_tracker_that_cannot_reach_mlflow_says_so_and_lets_training_go_on(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database" * 100)
    tracker = RunTracker(f"sqlite:///{tmp_path}/mlflow.db", "assistant")
    tracker.start("base_model", {}, {})
    tracker.log(1, {"loss": 1.0})
    tracked = tracker.finish()
    assert tracked.run_id is None
    assert tracked.problem is not None
    assert "cannot use MLflow" in tracked.problem


def test_nothing_of_mlflow_is_imported_until_it_is_used() -> None:
    code = (
        "import sys, forge_pipeline.release.registry, forge_pipeline.release.tracking, forge_pipeline.release.serving, "
        "forge_pipeline.release.package, forge_pipeline.governance.audit, forge_pipeline.governance.explain\n"
        "print([name for name in ('mlflow', 'torch', 'transformers', 'matplotlib', 'dagster') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
