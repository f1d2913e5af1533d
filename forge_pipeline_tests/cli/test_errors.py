import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RunForge = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_named_with_its_holder_and_the_option_that_changes_it(
    run_forge: RunForge, taken_port: int, tmp_path: Path
) -> None:
    answer = run_forge("ui", "--dagster-port", str(taken_port), "--home", str(tmp_path / "home"))
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert f"port {taken_port} for Dagster" in answer.stderr
    assert "by process" in answer.stderr
    assert "--dagster-port" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_second_port_is_looked_at_before_anything_is_started(
    run_forge: RunForge, taken_port: int, tmp_path: Path
) -> None:
    answer = run_forge("ui", "--dagster-port", "0", "--mlflow-port", str(taken_port), "--home", str(tmp_path / "home"))
    assert answer.returncode == 2
    assert f"port {taken_port} for MLflow" in answer.stderr
    assert not (tmp_path / "home" / "logs").exists()


def test_an_error_is_an_object_on_stdout_when_json_is_asked_for(
    run_forge: RunForge, taken_port: int, tmp_path: Path
) -> None:
    answer = run_forge("ui", "--json", "--mlflow-port", str(taken_port), "--home", str(tmp_path / "home"))
    assert answer.returncode == 2
    error = json.loads(answer.stdout)["error"]
    assert set(error) == {"kind", "problem", "where", "fix"}
    assert error["kind"] == "MachineError"
    assert str(taken_port) in error["problem"]


def test_an_error_in_an_earlier_option_is_an_object_too(run_forge: RunForge, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run_forge("bench", "startup", "--home", str(tmp_path / "file" / "home"), "--json")
    assert answer.returncode == 2
    assert json.loads(answer.stdout)["error"]["where"] == str(tmp_path / "file" / "home")


def test_debugging_shows_the_traceback(run_forge: RunForge, taken_port: int, tmp_path: Path) -> None:
    answer = run_forge("ui", "--dagster-port", str(taken_port), "--home", str(tmp_path / "home"), FORGE_DEBUG="1")
    assert answer.returncode != 0
    assert "Traceback" in answer.stderr


def test_long_paths_are_not_broken(run_forge: RunForge, tmp_path: Path) -> None:
    file = tmp_path / ("long" * 40)
    file.write_text("")
    answer = run_forge("bench", "--home", str(file / "home"), COLUMNS="60")
    assert str(file / "home") in answer.stderr


def test_an_unknown_benchmark_lists_the_known_ones(run_forge: RunForge, tmp_path: Path) -> None:
    answer = run_forge("bench", "nonsense", "--home", str(tmp_path / "home"))
    assert answer.returncode == 2
    assert "'nonsense'" in answer.stderr
    assert "startup" in answer.stderr
