"""What people do in the Dagster UI, against the real webserver, daemon and browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import forge_pipeline
from forge_pipeline_tests.end_to_end.conftest import Project, new_project

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(900)]
REPOSITORY = """query { repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"""
RUNS = """query { runsOrError { ... on Runs { results { runId status jobName stepKeysToExecute } } } }"""
START_SENSOR = """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
    __typename ... on PythonError { message } } }"""
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation($run: String!) { terminateRun(runId: $run) { __typename } }"""


@dataclass
class Pages:
    """A running `forge ui` over a project."""

    project: Project
    dagster: str
    mlflow: str

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.dagster}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        (data,) = found["data"].values()
        return data

    def repository(self) -> dict[str, str]:
        (node,) = self.ask(REPOSITORY)["nodes"]
        return {"repositoryName": node["name"], "repositoryLocationName": node["location"]["name"]}

    def launch(self, *path: str) -> str:
        selector = self.repository() | {"jobName": "__ASSET_JOB", "assetSelection": [{"path": list(path)}]}
        answer = self.ask(LAUNCH, params={"selector": selector, "runConfigData": {}})
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def status(self, run: str) -> str:
        return next(str(found["status"]) for found in self.ask(RUNS)["results"] if found["runId"] == run)

    def runs(self, status: str) -> int:
        return sum(found["status"] == status for found in self.ask(RUNS)["results"])


def wait(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def processes(root: Path, *words: str) -> list[int]:
    """Processes whose command line has all ``words`` and whose home is in ``root``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            variables = (folder / "environ").read_bytes().decode(errors="replace")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if all(word in command for word in words) and f"FORGE_HOME={root}" in variables and state != "Z":
            found.append(int(folder.name))
    return found


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    project = new_project(tmp_path_factory.mktemp("a watched project"))
    # Long enough to be cancelled in the middle.
    project.steps = 4000
    project.write_recipe()
    # Beside it the shipped recipe, to be looked at.
    for name in ("python_library", "python_assistant"):
        shutil.copytree(Path(forge_pipeline.__file__).parent / "defs" / name, project.root / "recipes" / name)
    program = [sys.executable, "-P", "-m", "forge_pipeline.cli.main"]
    server = subprocess.Popen(
        [*program, "ui", "--json", "--dagster-port", "0", "--mlflow-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=project.root,
        env=project.environment,
    )
    assert server.stdout is not None
    try:
        addresses = json.loads(server.stdout.readline())
        yield Pages(project, addresses["dagster"], addresses["mlflow"])
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def test_the_sensor_takes_new_files_to_shards_without_rewriting_any(pages: Pages) -> None:
    selector = pages.repository() | {"sensorName": "clerk_landing_sensor"}
    assert pages.ask(START_SENSOR, selector=selector)["__typename"] == "Sensor"
    shards = pages.project.root / "home" / "artifacts" / "clerk" / "token_shards"
    wait(lambda: pages.runs("SUCCESS") == 1, 240, "the founding batch is run")
    before = {path: path.read_bytes() for path in shards.rglob("*") if path.is_file()}
    assert len(list(shards.glob("*/current.json"))) == 1

    for number in range(20):
        text = f"Minutes of meeting {number}. The board met on day {number}, heard the report and agreed to go on."
        (pages.project.landing / f"minutes {number}.txt").write_text(text)
    wait(lambda: pages.runs("SUCCESS") == 2, 240, "the new batch is run")
    assert len(list(shards.glob("*/current.json"))) == 2
    assert {path: path.read_bytes() for path in before} == before


def training(pages: Pages) -> list[int]:
    return processes(pages.project.root / "home", "forge_pipeline.training.worker")


def checkpointed(pages: Pages) -> bool:
    return bool(list((pages.project.root / "home" / "work").rglob("checkpoints/step-*/manifest.json")))


def log_of_training(pages: Pages) -> str:
    (path,) = (pages.project.root / "home" / "work" / "clerk" / "base_model").rglob("rank-0.log")
    return path.read_text()


def test_cancelling_a_run_ends_its_training_within_ten_seconds(pages: Pages) -> None:
    pages.launch("clerk", "compute_plan")
    wait(lambda: pages.runs("SUCCESS") == 3, 120, "the plan is made")
    run = pages.launch("clerk", "base_model")
    wait(lambda: checkpointed(pages), 180, "a checkpoint is written")
    assert training(pages)
    pages.ask(TERMINATE, run=run)
    wait(lambda: not training(pages), 10, "no training process is left")
    wait(lambda: pages.status(run) == "CANCELED", 60, "the run is shown as cancelled")


def test_a_killed_run_worker_takes_its_training_along_and_the_next_run_resumes(pages: Pages) -> None:
    pages.launch("clerk", "base_model")
    wait(lambda: training(pages) and "resuming at step" in log_of_training(pages), 180, "training resumed")
    # The run's worker is whoever started the training.
    os.kill(parent(training(pages)[0]), signal.SIGKILL)
    wait(lambda: not training(pages), 10, "no training process is left")


def test_the_lineage_page_of_the_shipped_model_shows_its_stages(pages: Pages, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    lineage = "view=lineage&lineageScope=upstream&lineageDepth=20"
    page.goto(f"{pages.dagster}/assets/python_assistant/registered_model?{lineage}")
    for stage in ("landing_files", "token_shards", "base_model", "sft_model", "agent_model", "registered_model"):
        page.get_by_text(stage, exact=True).first.wait_for(timeout=60_000)
    page.close()


def test_an_asset_page_shows_figures_a_table_and_a_plot(pages: Pages, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    page.goto(f"{pages.dagster}/assets/clerk/token_shards?view=overview")
    for text in ("fingerprint", "tokens_train"):
        page.get_by_text(text).first.wait_for(timeout=60_000)
    page.close()
