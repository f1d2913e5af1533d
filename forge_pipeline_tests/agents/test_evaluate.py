"""An evaluation counts what happened: greedily by task, sampled by episode."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from forge_pipeline.agents.evaluate import evaluate_agent
from forge_pipeline.agents.settings import AgentEvaluationSettings, AgentSettings
from forge_pipeline.models.mistral import Mistral


def test_a_babbling_model_fails_every_held_out_task(
    model: Mistral, tokenizer: Tokenizer, tasks_folder: Path, settings: AgentSettings
) -> None:
    few = settings.model_copy(update={"evaluation": AgentEvaluationSettings(tasks=10, samples=3, bootstrap=100)})
    advanced: list[float] = []
    evaluation = evaluate_agent(model, tokenizer, tasks_folder, few, advanced.append)
    assert sum(advanced) == 10
    headline = {result.metric: result for result in evaluation.results if not result.detail}
    greedy, sampled = headline["task_success_greedy"], headline["task_success_sampled"]
    assert (greedy.value, greedy.n, greedy.unit) == (0.0, 10, "tasks")
    assert 0.0 < greedy.high < 1.0
    assert (sampled.value, sampled.n, sampled.unit) == (0.0, 30, "episodes")
    assert len(evaluation.episodes) == 40
    parts = [result for result in evaluation.results if result.metric == "task_success_greedy" and result.detail]
    # Once by kind and once by origin.
    assert sum(result.n for result in parts) == 20
    assert evaluate_agent(model, tokenizer, tasks_folder, few) == evaluation
