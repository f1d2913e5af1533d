"""The small lineage, bare and through Dagster."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from forge_pipeline.benchmarks.learning import figures_of, sealed_results
from forge_pipeline.benchmarks.orchestration import (
    MODEL,
    RECIPES,
    TimedRun,
    compare,
    environment_of,
    lay_out_documents,
    repeated_run,
    timed_run,
)
from forge_pipeline.benchmarks.pipeline import sealed_seconds
from forge_pipeline.benchmarks.timed_run import BARE, DAGSTER
from forge_pipeline.errors import ForgeError
from forge_pipeline.lineage.open import Project, project_stages
from forge_pipeline.lineage.recipes import read_recipes


def test_each_way_is_the_mean_of_its_runs_and_dagster_is_set_against_bare() -> None:
    runs = [TimedRun(BARE, 90.0, {"a": 60}), TimedRun(DAGSTER, 105.0, {"a": 70}), TimedRun(BARE, 110.0, {"a": 80})]
    figures = {figure.name: figure for figure in compare(runs)}
    assert figures["bare_a"].value == pytest.approx(70)
    assert figures["bare_total"].value == pytest.approx(100)
    assert figures["dagster_overhead"].value == pytest.approx(5)
    assert figures["dagster_overhead_share"].value == pytest.approx(5)
    assert figures["dagster_overhead_share"].holds is True


def test_more_than_a_tenth_is_too_much() -> None:
    figures = compare([TimedRun(BARE, 100.0, {}), TimedRun(DAGSTER, 110.5, {})])
    assert figures[-1].holds is False


def test_the_measured_runs_reach_no_store_or_registry_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORGE_STORE", "FORGE_MLFLOW_URI", "FORGE_DAGSTER_CONFIG", "FORGE_SOURCES"):
        monkeypatch.setenv(name, "of others")
    variables = environment_of(tmp_path)
    assert "of others" not in variables.values()
    assert variables["FORGE_HOME"] == str(tmp_path)


def test_the_documents_are_source_alone(tmp_path: Path) -> None:
    lay_out_documents(tmp_path / "documents")
    files = [path for path in (tmp_path / "documents").rglob("*") if path.is_file()]
    assert len(files) > 100
    assert not [path for path in files if path.suffix == ".pyc"]


def test_a_run_that_fails_ends_in_one_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="KeyError: 'sideways'"):
        timed_run("sideways", tmp_path / "home")


@dataclass(frozen=True)
class Measured:
    run: TimedRun
    home: Path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """One run each way."""
    found = {}
    for way in (BARE, DAGSTER):
        home = tmp_path_factory.mktemp("measured") / way
        found[way] = Measured(timed_run(way, home), home)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_ways_time_every_stage_and_make_the_same(measured: dict[str, Measured]) -> None:
    recipes = read_recipes(RECIPES)
    stages = {stage.name.stage for stage in project_stages(recipes.corpora, recipes.models)} - {"landing_files"}
    made = []
    for one in measured.values():
        assert set(one.run.stages) == stages
        assert all(seconds > 0 for seconds in one.run.stages.values())
        assert sum(one.run.stages.values()) < one.run.total
        records = (one.home / "artifacts").rglob("record.json")
        made.append({json.loads(path.read_text())["fingerprint"] for path in records})
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_repeated_run_is_shorter_than_the_first(measured: dict[str, Measured]) -> None:
    assert repeated_run(measured[DAGSTER].home) < measured[DAGSTER].run.total / 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_sealed_run_learned_and_took_can_be_read(
    measured: dict[str, Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = measured[BARE]
    for name, value in environment_of(one.home).items():
        monkeypatch.setenv(name, value)
    figures = {figure.name: figure for figure in figures_of(sealed_results(Project.locate(), MODEL))}
    assert 0 < figures["base_bits_per_byte"].value < 9
    assert 0 <= figures["task_success_greedy_after_rl"].value <= 1
    assert 0 < sealed_seconds(MODEL) <= sum(one.run.stages.values())


def test_the_bare_way_knows_no_dagster(tmp_path: Path) -> None:
    # Up to the first stage that has documents to read: the imports are done by then.
    program = (
        "import sys; from pathlib import Path; from forge_pipeline.lineage import execution\n"
        "execution.Lineage.make = lambda *arguments: None\n"
        "from forge_pipeline.benchmarks.timed_run import main\n"
        f"main('bare', {MODEL!r}, Path('report.json'))\n"
        "assert 'dagster' not in sys.modules\n"
    )
    lay_out_documents(tmp_path / "landing" / MODEL)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "base_model" in json.loads((tmp_path / "report.json").read_text())
