"""The whole lineage on a small folder, through Dagster, as a person would run it."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from forge_pipeline_tests.end_to_end.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def summary(clerk: Project, sandbox_program: str) -> Any:
    """Of a run that has no network but its own loopback."""
    offline = [sandbox_program, "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent"]
    return clerk.json("run", "clerk", inside=offline)


def test_documents_become_a_registered_model(summary: Any, clerk: Project) -> None:
    documents = summary["documents"]
    assert documents["files"] > 90
    assert documents["quarantined"] >= 1
    assert documents["dropped"]["deduplication: exact"] >= 1
    assert documents["kept"] + sum(documents["dropped"].values()) == documents["in"]
    assert set(summary["training"]) == {"base_model", "sft_model", "aligned_model", "agent_model"}
    assert all(summary["evaluation"][stage] for stage in summary["training"])
    folder = Path(summary["model_folder"])
    assert (folder / "model.safetensors").is_file()
    assert (folder / "README.md").is_file()
    assert Path(summary["audit_page"]).is_file()
    assert summary["registered"]["version"] in (1, "1")
    assert summary["release"]["passed"] is True
    assert folder.is_relative_to(clerk.root / "home")


def test_each_measure_has_n_and_an_interval(summary: Any) -> None:
    for rows in summary["evaluation"].values():
        metrics = {row["metric"] for row in rows}
        assert {"bits_per_byte", "question_accuracy", "preference_accuracy"} <= metrics
        assert all(row["low"] <= row["value"] <= row["high"] and row["n"] > 0 for row in rows)


def test_everything_that_ran_is_in_dagster(summary: Any, clerk: Project) -> None:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(clerk.root / "home" / "dagster")) as instance:
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        shown = {key.to_user_string() for key in instance.all_asset_keys()}
    made = {name.split("[")[0] for name in summary["made"]}
    assert made <= shown


def test_every_declared_check_is_reported_and_no_other(
    summary: Any, clerk: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_pipeline.lineage.open import Project as Opened

    for name in ("FORGE_HOME", "FORGE_RECIPES"):
        monkeypatch.setenv(name, clerk.environment[name])
    project = Opened.locate()
    lineage = project.lineage()
    for stage in lineage.stages:
        for unit in lineage.units(stage):
            record = lineage.record(unit)
            assert record is not None, unit.key
            reported = sorted(check.name for check in project.store.outcome(record).checks)
            assert reported == sorted(stage.checks), unit.key


def test_a_repeated_run_computes_nothing_and_is_quick(summary: Any, clerk: Project) -> None:
    began = time.monotonic()
    again = clerk.json("run", "clerk")
    seconds = time.monotonic() - began
    assert again["made"] == []
    assert again["fingerprints"] == summary["fingerprints"]
    assert seconds < 15


def test_trace_answers_from_a_model_and_from_a_document(summary: Any, clerk: Project) -> None:
    model = clerk.json("trace", "clerk")
    assert model["totals"]["tokens seen in training"] > 0
    trained = next(row for row in model["documents"] if row["tokens_seen"])
    document = clerk.json("trace", trained["doc_id"])
    assert {reach["model"] for reach in document["reached"]} == {"clerk"}
    (tokens,) = [reach for reach in document["reached"] if reach["via"] == "tokens"]
    assert (tokens["tokens"], tokens["first_step"]) == (trained["tokens_seen"], trained["first_step"])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("scan.bin", "quarantined"),
        ("code/decoder.py", "duplicate"),
        ("letters.jsonl", "extracted"),
        ("statute.pdf", "extracted"),
    ],
)
def test_trace_says_why_a_document_was_dropped(summary: Any, clerk: Project, path: str, reason: str) -> None:
    events = clerk.json("trace", path)["events"]
    assert reason in {event["action"] for event in events}


def test_the_packaged_model_answers(summary: Any, clerk: Project) -> None:
    messages = clerk.json("chat", "clerk", "--prompt", "What does the office do?")["messages"]
    assert messages[-1]["role"] == "assistant"


def test_the_runs_and_the_version_are_in_mlflow(summary: Any, clerk: Project) -> None:
    with sqlite3.connect(clerk.root / "home" / "mlflow" / "mlflow.db") as database:
        runs = {name for (name,) in database.execute("SELECT name FROM runs")}
        alias = database.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
    assert {"base_model", "sft_model", "aligned_model", "agent_model"} <= runs
    assert ("champion", 1) in [(name, int(version)) for name, version in alias]


def test_new_files_add_a_batch_and_rewrite_no_earlier_shard(summary: Any, clerk: Project) -> None:
    shards = clerk.root / "home" / "artifacts" / "clerk" / "token_shards"
    before = {path: path.read_bytes() for path in shards.rglob("*") if path.is_file()}
    for number in range(20):
        text = f"Minutes of meeting {number}. The board met on day {number}, heard the report and agreed to go on."
        (clerk.landing / f"minutes {number}.txt").write_text(text)
    after = clerk.json("run", "clerk", "--until", "token_shards")
    assert [name.split("[")[0] for name in after["made"]] == [
        f"clerk/{stage}"
        for stage in ("documents", "curated_documents", "unique_documents", "training_documents", "token_shards")
    ]
    assert after["documents"]["batches"] == 2
    assert {path: path.read_bytes() for path in before} == before


def test_a_changed_threshold_makes_again_only_what_depends_on_it(summary: Any, clerk: Project) -> None:
    for path in clerk.landing.iterdir():
        path.unlink()
    clerk.threshold = 0.5
    clerk.write_recipe()
    # Planned, not run: what would be made says what depends on the threshold.
    from forge_pipeline.cli.run import stale_units
    from forge_pipeline.lineage.execution import Lineage
    from forge_pipeline.lineage.open import project_stages
    from forge_pipeline.lineage.recipes import read_recipes
    from forge_pipeline.storage import ArtifactStore, Home

    recipes = read_recipes(clerk.root / "recipes")
    store = ArtifactStore(Home(clerk.root / "home"))
    first = store.batches("clerk", "landing_files")[:1]
    lineage = Lineage(project_stages(recipes.corpora, recipes.models), store, {"clerk": first})
    stale = [unit.stage.name.stage for unit in stale_units(lineage, "clerk", "clerk", None)]
    assert stale == ["release_decision", "model_package", "registered_model", "serving_check", "audit_report"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("run", "clerk", "--source", "/nowhere/at all"), "does not exist"),
        (("run", "nobody"), "there is no model 'nobody'"),
        (("run", "clerk", "--until", "nothing"), "has no stage 'nothing'"),
        (("trace", "no such thing"), "is no model"),
    ],
)
def test_bad_input_is_one_clear_error(clerk: Project, arguments: tuple[str, ...], problem: str) -> None:
    done = clerk.forge(*arguments, expect=2)
    assert problem in done.stderr
    assert "fix:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_corpus_is_one_clear_error(clerk: Project, tmp_path: Path) -> None:
    done = clerk.forge("run", "clerk", "--source", str(tmp_path), "--json", expect=2)
    error = json.loads(done.stdout)["error"]
    assert "empty" in error["problem"]
    assert error["fix"]
