import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from forge_pipeline.cli import examination

RunForge = Callable[..., "subprocess.CompletedProcess[str]"]


def test_json_has_a_finding_for_each_thing_and_a_fix_for_each_that_is_wrong(
    run_forge: RunForge, tmp_path: Path
) -> None:
    answer = run_forge("doctor", "--json", "--home", str(tmp_path / "home"))
    report = json.loads(answer.stdout)
    names = [finding["name"] for finding in report["findings"]]
    assert names == [
        *("python", "cores", "memory", "home", "disk", "packages", "gpu", "sandbox", "browser"),
        *("dagster port", "mlflow port"),
    ]
    for finding in report["findings"]:
        assert set(finding) == {"name", "status", "detail", "fix"}
        assert finding["detail"]
        assert finding["status"] == "ok" or finding["fix"]
    assert answer.returncode == (0 if report["healthy"] else 1)
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_made_is_a_problem_with_status_1(run_forge: RunForge, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run_forge("doctor", "--home", str(tmp_path / "file" / "home"))
    assert answer.returncode == 1
    assert "cannot be written" in answer.stdout
    assert "fix: give another folder" in answer.stdout


def test_a_package_that_differs_from_its_pin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = examination.pinned_versions()
    monkeypatch.setattr(examination, "pinned_versions", lambda: {**pins, "numpy": "0.1"})
    finding = examination._packages()
    assert finding.status == "warning"
    assert "(pinned 0.1)" in finding.detail


def test_a_port_in_use_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        finding = examination._port("dagster", server.getsockname()[1])
    assert finding.status == "warning"
    assert "--dagster-port" in finding.fix


def test_every_requirement_of_the_project_is_pinned() -> None:
    assert set(examination._required_projects()) <= set(examination.pinned_versions())
