"""An evaluation counts what happened, with intervals that respect that samples of a task hang together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tokenizers import Tokenizer

from forge_pipeline.agents.evaluate import evaluate_agent
from forge_pipeline.agents.settings import AgentEvaluationSettings, AgentSettings
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting.intervals import clustered_interval, wilson


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilson_is_scipys(successes: int, failures: int) -> None:
    trials = successes + failures
    if trials:
        expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)
    else:
        assert wilson(0, 0) == (0.0, 1.0)


def test_samples_that_always_agree_count_once() -> None:
    outcomes = np.random.default_rng(0).random(100) < 0.4
    alone = clustered_interval([[float(won)] for won in outcomes], 0, 4000)
    repeated = clustered_interval([[float(won)] * 8 for won in outcomes], 0, 4000)
    assert repeated == alone
    low, high = wilson(int(outcomes.sum()), 100)
    assert alone == pytest.approx((low, high), abs=0.03)


def test_nothing_to_average_is_refused() -> None:
    with pytest.raises(ValueError, match="0 numerators"):
        clustered_interval([], 0, 100)


def test_a_babbling_model_fails_every_held_out_task(
    model: Mistral, tokenizer: Tokenizer, tasks_folder: Path, settings: AgentSettings
) -> None:
    few = settings.model_copy(update={"evaluation": AgentEvaluationSettings(tasks=10, samples=3, bootstrap=100)})
    advanced: list[float] = []
    evaluation = evaluate_agent(model, tokenizer, tasks_folder, few, advanced.append)
    assert sum(advanced) == 10
    greedy, sampled = evaluation.figure("task_success_greedy"), evaluation.figure("task_success_sampled")
    assert (greedy.value, greedy.n, greedy.unit) == (0.0, 10, "tasks")
    assert 0.0 < greedy.high < 1.0
    assert (sampled.value, sampled.n, sampled.unit) == (0.0, 30, "episodes")
    assert len(evaluation.episodes) == 40
    parts = [figure for figure in evaluation.figures if figure.metric == "task_success_greedy" and figure.detail]
    # Once by kind and once by origin.
    assert sum(figure.n for figure in parts) == 20
    assert evaluate_agent(model, tokenizer, tasks_folder, few) == evaluation
