"""The quick run's figures, told from results that are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_pipeline.benchmarks import Figure
from forge_pipeline.benchmarks.learning import EVALUATIONS, figures_of, learning
from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.reporting.results import Result

METRICS = ("bits_per_byte", "question_accuracy", "preference_accuracy", "task_success_sampled", "task_success_greedy")


def result(metric: str, value: float, half: float) -> Result:
    return Result(metric, value, value - half, value + half, 100, "items")


def results(half: float, bits: float = 1.6) -> dict[str, dict[str, Result]]:
    """Every share a fifth higher after each kind of training."""
    found = {}
    for place, evaluation in enumerate(EVALUATIONS):
        found[evaluation] = {metric: result(metric, 0.2 * (place + 1), half) for metric in METRICS}
    found["base_evaluation"]["bits_per_byte"] = result("bits_per_byte", bits, half)
    return found


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    found = {figure.name: figure for figure in figures}
    assert len(found) == len(figures)
    return found


def test_each_figure_comes_with_its_interval() -> None:
    figures = by_name(figures_of(results(half=0.05)))
    for name, figure in figures.items():
        if f"{name}_low" in figures:
            assert figures[f"{name}_low"].value < figure.value < figures[f"{name}_high"].value
    assert figures["question_accuracy_before_sft"].value == pytest.approx(0.2)
    assert figures["question_accuracy_after_sft"].value == pytest.approx(0.4)
    assert figures["preference_accuracy_before_dpo"].value == pytest.approx(0.4)
    assert figures["task_success_greedy_after_rl_high"].value == pytest.approx(0.85)


@pytest.mark.parametrize(("half", "apart"), [(0.05, True), (0.15, False)])
def test_a_gain_holds_only_if_the_intervals_are_apart(half: float, apart: bool) -> None:
    figures = by_name(figures_of(results(half)))
    gains = [figure for name, figure in figures.items() if "_gain_of_" in name]
    assert len(gains) == 4
    assert all(gain.value == pytest.approx(0.2) for gain in gains)
    # Greedy success need not rise, only stay.
    wanted = {gain.name: apart or gain.name == "task_success_greedy_gain_of_rl" for gain in gains}
    assert {gain.name: gain.holds for gain in gains} == wanted


@pytest.mark.parametrize(("after", "stays"), [(0.55, True), (0.45, False)])
def test_greedy_success_must_not_fall_below_the_interval_before(after: float, stays: bool) -> None:
    found = results(half=0.1)
    found["aligned_evaluation"]["task_success_greedy"] = result("task_success_greedy", 0.6, 0.1)
    found["agent_evaluation"]["task_success_greedy"] = result("task_success_greedy", after, 0.1)
    assert by_name(figures_of(found))["task_success_greedy_gain_of_rl"].holds is stays


def test_intervals_that_part_in_the_wrong_direction_are_no_gain() -> None:
    found = results(half=0.01)
    found["sft_evaluation"]["question_accuracy"] = result("question_accuracy", 0.1, 0.01)
    gain = by_name(figures_of(found))["question_accuracy_gain_of_sft"]
    assert gain.value < 0
    assert gain.holds is False


@pytest.mark.parametrize(("bits", "holds"), [(1.84, True), (1.85, False)])
def test_the_base_model_is_judged_by_its_bits_per_byte(bits: float, holds: bool) -> None:
    assert by_name(figures_of(results(0.1, bits)))["base_bits_per_byte"].holds is holds


def test_a_home_without_the_run_says_what_is_missing_and_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_HOME", str(tmp_path))
    with pytest.raises(StorageError) as raised:
        learning(tmp_path, SilentProgress())
    assert all(name in raised.value.problem for name in EVALUATIONS)
    assert raised.value.where == str(tmp_path)
    assert raised.value.fix is not None
    assert "forge run python_assistant" in raised.value.fix
