import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def start(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "forge_pipeline.cli.main", "ui", "--json", "--home", str(home)),
            *("--dagster-port", "0", "--mlflow-port", "0"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "FORGE_MLFLOW_URI"},
    )


@pytest.fixture
def running(tmp_path: Path) -> "Iterator[tuple[subprocess.Popen[str], dict[str, str], list[psutil.Process]]]":
    """The program, its addresses, and every process that it started."""
    process = start(tmp_path / "a home")
    assert process.stdout is not None
    addresses = json.loads(process.stdout.readline())
    family = psutil.Process(process.pid).children(recursive=True)
    yield process, addresses, family
    for member in family:
        if member.is_running():
            member.kill()
    process.kill()
    process.wait()


Running = tuple["subprocess.Popen[str]", dict[str, str], list[psutil.Process]]


def test_both_pages_answer_and_ctrl_c_stops_everything(running: Running) -> None:
    process, addresses, family = running
    assert set(addresses) == {"dagster", "mlflow"}
    with urllib.request.urlopen(f"{addresses['dagster']}/server_info", timeout=10) as answer:
        assert json.load(answer)["dagster_version"]
    with urllib.request.urlopen(addresses["mlflow"], timeout=10) as answer:
        assert b"MLflow" in answer.read()
    # Webserver, daemon, code server and its proxy, and MLflow with its worker.
    assert len(family) >= 5
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert [member for member in family if member.is_running()] == []


def test_nothing_survives_when_the_program_is_killed(running: Running) -> None:
    process, _, family = running
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
