import os
import subprocess
import sys
from pathlib import Path

import pytest

from forge_pipeline import environment
from forge_pipeline.errors import StorageError

READ_INSTANCE = """
import sys, warnings
warnings.simplefilter("error")
from forge_pipeline import environment
environment.prepare(sys.argv[1])
import dagster
with dagster.DagsterInstance.get() as instance:
    print(instance.nux_enabled, instance.telemetry_enabled, instance.run_retries_enabled, instance.root_directory)
"""

PRODUCTION = {
    "FORGE_POSTGRES_HOST": "database",
    "FORGE_POSTGRES_PORT": "5433",
    "FORGE_POSTGRES_USER": "forge",
    "FORGE_POSTGRES_PASSWORD": "p@ss word",
    "FORGE_POSTGRES_DATABASE": "runs",
    "FORGE_LOGS_BUCKET": "logs",
    "FORGE_LOGS_PREFIX": "dagster",
}


@pytest.fixture
def same_variables_after() -> object:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_instance_lies_in_the_home_and_neither_greets_nor_reports(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", READ_INSTANCE, str(home)], cwd="/", capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == f"False False True {home / 'dagster'}"


def test_the_production_instance_uses_postgres_and_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.instance.ref import InstanceRef

    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    reference = InstanceRef.from_dir(str(environment.CHECKOUT / "infra"))
    assert reference.storage_data is not None
    assert reference.storage_data.class_name == "DagsterPostgresStorage"
    assert "postgresql+psycopg2" in reference.storage_data.config_yaml
    assert type(reference.compute_log_manager).__name__ == "S3ComputeLogManager"


@pytest.mark.usefixtures("same_variables_after")
def test_a_configuration_that_somebody_put_into_the_home_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "dagster" / "dagster.yaml"
    own.parent.mkdir()
    own.write_text("telemetry: {enabled: false}\n")
    environment.prepare(tmp_path)
    assert not own.is_symlink()
    assert own.read_text() == "telemetry: {enabled: false}\n"


@pytest.mark.usefixtures("same_variables_after")
def test_another_configuration_replaces_the_link(tmp_path: Path) -> None:
    environment.prepare(tmp_path)
    link = tmp_path / "dagster" / "dagster.yaml"
    assert link.resolve() == environment.CHECKOUT / "dagster.yaml"
    os.environ["FORGE_DAGSTER_CONFIG"] = str(environment.CHECKOUT / "infra" / "dagster.yaml")
    environment.prepare(tmp_path)
    assert link.resolve() == environment.CHECKOUT / "infra" / "dagster.yaml"
    os.environ["FORGE_DAGSTER_CONFIG"] = str(tmp_path / "missing.yaml")
    with pytest.raises(StorageError, match="missing"):
        environment.prepare(tmp_path)


@pytest.mark.usefixtures("same_variables_after")
def test_a_home_given_by_name_wins_over_what_a_parent_process_set(tmp_path: Path) -> None:
    environment.prepare(tmp_path / "first")
    environment.prepare(tmp_path / "second")
    for name in ("FORGE_HOME", "DAGSTER_HOME", "MLFLOW_TRACKING_URI", "MPLCONFIGDIR"):
        assert str(tmp_path / "second") in os.environ[name]
    assert os.environ["HF_HUB_OFFLINE"] == "1"
