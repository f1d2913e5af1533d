"""The gate says what passed, what failed and which stage is the cheapest that would do; it never raises for a miss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from forge_pipeline.errors import RecipeError, StorageError
from forge_pipeline.release.decision import StageCost, decide_release, judge
from forge_pipeline.release.results import Result
from forge_pipeline.release.settings import ReleaseSettings, Threshold
from forge_pipeline.reporting import Outcome, SilentProgress
from forge_pipeline_tests.release.conftest import write_evaluation

STAGES: dict[str, dict[str, tuple[float, float, float]]] = {
    "base_model": {"bits_per_byte": (1.80, 1.75, 1.85), "accuracy": (0.10, 0.05, 0.15)},
    "sft_model": {"bits_per_byte": (1.90, 1.85, 1.95), "accuracy": (0.60, 0.50, 0.70)},
    "agent_model": {"accuracy": (0.65, 0.55, 0.75), "success": (0.80, 0.70, 0.90)},
}
COSTS = {
    "base_model": StageCost(seconds=240.0, flops=4e12),
    "sft_model": StageCost(seconds=40.0, flops=1e12),
    "agent_model": StageCost(seconds=90.0, flops=2e12),
}


def decide(folder: Path, *thresholds: Threshold, **more: Any) -> tuple[Outcome, dict[str, Any]]:
    evaluations = {stage: write_evaluation(folder / stage, results) for stage, results in STAGES.items()}
    (folder / "decision").mkdir()
    recipe = ReleaseSettings(registered_model="assistant", thresholds=thresholds, **more)
    outcome = decide_release(recipe, evaluations, COSTS, folder / "decision", SilentProgress())
    return outcome, json.loads((folder / "decision" / "decision.json").read_text())


def test_every_threshold_must_hold(tmp_path: Path) -> None:
    outcome, body = decide(
        tmp_path,
        Threshold(metric="accuracy", at_least=0.5),
        Threshold(metric="bits_per_byte", stage="base_model", at_most=1.7),
    )
    assert body["passed"] is False
    assert [(entry["stage"], entry["verdict"]) for entry in body["thresholds"]] == [
        ("agent_model", "passed"),
        ("base_model", "failed"),
    ]
    assert body["reason"] == "bits_per_byte of base_model is 1.8 (at most 1.7 is asked)"
    assert [check.passed for check in outcome.checks] == [True, False]
    assert (outcome.checks[1].value, outcome.checks[1].threshold) == (1.8, 1.7)


def test_the_cheapest_stage_is_the_first_that_meets_the_whole_target(tmp_path: Path) -> None:
    _, body = decide(tmp_path, Threshold(metric="accuracy", at_least=0.5))
    assert body["passed"] is True
    assert (body["released_stage"], body["cheapest_stage"]) == ("agent_model", "sft_model")
    assert [(rung["stage"], rung["seconds"], rung["flops"], rung["meets_target"]) for rung in body["stages"]] == [
        ("base_model", 240.0, 4e12, False),
        ("sft_model", 280.0, 5e12, True),
        ("agent_model", 370.0, 7e12, True),
    ]


def test_a_condition_on_one_stage_is_no_part_of_the_target(tmp_path: Path) -> None:
    _, body = decide(tmp_path, Threshold(metric="bits_per_byte", stage="base_model", at_most=1.84))
    assert body["passed"] is True
    assert body["cheapest_stage"] is None


def test_an_interval_must_clear_the_threshold_when_the_recipe_asks_for_it(tmp_path: Path) -> None:
    _, body = decide(
        tmp_path,
        Threshold(metric="accuracy", at_least=0.6, judged_by="interval"),
        Threshold(metric="success", at_least=0.7, judged_by="interval"),
    )
    assert [entry["verdict"] for entry in body["thresholds"]] == ["failed", "passed"]
    assert body["passed"] is False


def test_what_nobody_measured_fails(tmp_path: Path) -> None:
    _, body = decide(tmp_path, Threshold(metric="bits_per_byte", at_most=9.0))
    assert body["passed"] is False
    assert body["thresholds"][0]["verdict"] == "not_measured"
    assert body["cheapest_stage"] == "base_model"


def test_without_a_threshold_nothing_is_released(tmp_path: Path) -> None:
    outcome, body = decide(tmp_path)
    assert body["passed"] is False
    assert outcome.counts["cheapest_stage"] is None


def test_a_recipe_may_release_an_earlier_stage(tmp_path: Path) -> None:
    _, body = decide(tmp_path, Threshold(metric="accuracy", at_least=0.62), released_stage="sft_model")
    assert (body["passed"], body["released_stage"], body["cheapest_stage"]) == (False, "sft_model", "agent_model")


def test_a_stage_that_was_not_evaluated_is_an_error_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'aligned_model' was not evaluated") as caught:
        decide(tmp_path, Threshold(metric="accuracy", stage="aligned_model", at_least=0.5))
    assert caught.value.where == "release.thresholds.0.stage"


def test_a_missing_evaluation_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    recipe = ReleaseSettings(registered_model="assistant")
    with pytest.raises(StorageError) as caught:
        decide_release(recipe, {"sft_model": tmp_path / "empty"}, COSTS, tmp_path, SilentProgress())
    assert caught.value.where == str(tmp_path / "empty" / "results.parquet")


def test_all_results_are_kept_with_their_stage(tmp_path: Path) -> None:
    decide(tmp_path, Threshold(metric="accuracy", at_least=0.5))
    rows = pq.read_table(tmp_path / "decision" / "evaluations.parquet").to_pylist()
    assert [(row["stage"], row["metric"]) for row in rows] == [
        (stage, metric) for stage, results in STAGES.items() for metric in results
    ]


@pytest.mark.parametrize("bounds", [{}, {"at_least": 0.1, "at_most": 0.9}, {"at_least": math.nan}])
def test_a_threshold_has_exactly_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Threshold(metric="accuracy", **bounds)


@settings(max_examples=200)
@given(value=st.floats(-1e3, 1e3), width=st.floats(0, 10), bound=st.floats(-1e3, 1e3))
def test_an_interval_that_passes_means_that_the_value_passes(value: float, width: float, bound: float) -> None:
    result = Result("s", "m", value, value - width, value + width, 10, "items", "")
    for side in ("at_least", "at_most"):
        by_interval = judge(Threshold(metric="m", judged_by="interval", **{side: bound}), "s", {("s", "m"): result})
        by_value = judge(Threshold(metric="m", **{side: bound}), "s", {("s", "m"): result})
        assert by_value.passed or not by_interval.passed
        assert by_value.passed == (value >= bound if side == "at_least" else value <= bound)
