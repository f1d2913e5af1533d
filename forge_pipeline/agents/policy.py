"""The agent stage: reinforcement learning from rewards that the database decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from forge_pipeline.agents.objective import ROLLOUTS_FILE
from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.corpus.tables import read_table
from forge_pipeline.models.architecture import ModelConfig
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Scalar, Table
from forge_pipeline.training.launch import TrainingSummary, train
from forge_pipeline.training.report import training_counts
from forge_pipeline.training.run import TrainingRun
from forge_pipeline.training.settings import EngineSettings

CODE_VERSION = "1"
OBJECTIVE = "forge_pipeline.agents.objective:GroupRelativePolicyObjective"
# The first and the last tenth of the steps are compared.
COMPARED = 10
# A reward that grows by more than this without success growing is a sign of reward hacking.
DIVERGENCE_LIMIT = 0.05


def train_agent(
    settings: AgentSettings,
    engine: EngineSettings,
    initial_model: Path,
    tasks: Path,
    tokenizer: Path,
    output: Path,
    work: Path,
    progress: Progress,
) -> Outcome:
    """Train the model of ``initial_model`` on the training tasks by GRPO, resuming from ``work``.

    ``initial_model``, ``tasks`` and ``tokenizer`` are sealed artifact folders. Fills ``output`` with `model/`, its
    records, and `rollouts.parquet` (the conversations of some steps, with every part of their rewards). Raises
    TrainingError if training fails.
    """
    model_folder = initial_model / "model"
    rollouts = work / "rollouts"
    rollouts.mkdir(parents=True, exist_ok=True)
    run = TrainingRun(
        objective=OBJECTIVE,
        objective_settings={
            "agent": settings.model_dump(mode="json"),
            "tasks": str(tasks),
            "initial_model": str(model_folder),
            "steps": engine.steps,
            "rollouts": str(rollouts),
        },
        initial_model=str(model_folder),
        tokenizer=str(tokenizer / "tokenizer"),
        engine=engine,
    )
    capacity = min(settings.episode.total_tokens, ModelConfig.read(model_folder).context_length)
    if capacity < settings.episode.total_tokens:
        progress.note(f"conversations are cut at {capacity} tokens, the model's context length")
    summary = train(run, work, output, progress)
    mean_tokens = _mean(summary.history, "tokens_per_rollout")
    seen = int(mean_tokens * summary.steps * settings.policy.tasks_per_step * settings.policy.group_size)
    cost = training_counts(summary, ModelConfig.read(model_folder), seen, int(mean_tokens))
    return _outcome(settings, summary, cost, output)


def _outcome(settings: AgentSettings, summary: TrainingSummary, cost: Mapping[str, Scalar], output: Path) -> Outcome:
    history = summary.history
    best = 1.0 + settings.reward.form + settings.reward.efficiency
    first, last = history[: max(1, len(history) // COMPARED)], history[-max(1, len(history) // COMPARED) :]
    gain = {name: _mean(last, name) - _mean(first, name) for name in ("reward", "success")}
    # Success is worth 1, and what may come with it form and efficiency.
    unexplained = gain["reward"] / best - gain["success"]
    failures = sum(entry.get("scoring_failures", 0.0) for entry in history)
    final = {name: value for name, value in summary.final_metrics.items() if name != "step"}
    rollouts = len(history) * settings.policy.tasks_per_step * settings.policy.group_size
    return Outcome(
        counts={
            "rollouts": rollouts,
            "sampled_success_first_steps": _mean(first, "success"),
            "sampled_success_last_steps": _mean(last, "success"),
            "reward_without_success": unexplained,
            **final,
            **cost,
        },
        checks=[
            Check(
                "reward_follows_success",
                unexplained <= DIVERGENCE_LIMIT,
                "the reward's growth, as a share of the best, comes from tasks solved and not from its other parts",
                unexplained,
                DIVERGENCE_LIMIT,
            ),
            Check("scoring_never_failed", failures == 0, "every episode could be scored", failures, 0),
        ],
        tables=[
            Table.of(
                "First and last steps",
                [
                    {"metric": name, "first steps": round(_mean(first, name), 4), "last steps": round(value, 4)}
                    for name, value in sorted((name, _mean(last, name)) for name in final)
                ],
            ),
            _conversations(output),
        ],
        plots=[
            _curves("Reward and success of rollouts", "share", history, ("reward", "success")),
            _curves("Greedy success on validation tasks", "share", history, ("validation_greedy_success",)),
            _curves("Parts of the reward", "mean per rollout", history, ("success", "form", "efficiency")),
            _curves("Entropy of the policy", "nats per token", history, ("entropy",)),
            _curves("Tokens per rollout", "tokens", history, ("tokens_per_rollout",)),
        ],
    )


def _mean(entries: Sequence[dict[str, float]], name: str) -> float:
    values = [entry[name] for entry in entries if name in entry]
    return sum(values) / len(values) if values else 0.0


def _curves(title: str, unit: str, history: Sequence[dict[str, float]], names: tuple[str, ...]) -> Plot:
    series = {}
    for name in names:
        present = [entry for entry in history if name in entry]
        series[name] = ([int(entry["step"]) for entry in present], [entry[name] for entry in present])
    return Plot(title, "line", "step", unit, series)


def _conversations(output: Path) -> Table:
    """The last conversations that were kept: the best and the worst of each task."""
    rows = read_table(output, ROLLOUTS_FILE).to_pylist()
    latest = [row for row in rows if row["step"] == rows[-1]["step"]] if rows else []
    shown: list[dict[str, Scalar]] = []
    for task_id in dict.fromkeys(row["task_id"] for row in latest):
        group = sorted((row for row in latest if row["task_id"] == task_id), key=lambda row: row["reward"])
        for row in dict.fromkeys((len(group) - 1, 0)):
            shown.append(
                {
                    "kind": group[row]["kind"],
                    "expected": group[row]["expected"],
                    "answer": (group[row]["answer"] or "")[:80],
                    "calls": group[row]["calls"],
                    "reward": round(group[row]["reward"], 3),
                }
            )
    return Table.of("Rollouts of the last step kept", shown[:20])
