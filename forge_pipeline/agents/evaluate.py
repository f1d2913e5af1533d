"""How often a model solves held-out tasks, greedily and when it samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from forge_pipeline.agents.episode import Task
from forge_pipeline.agents.index import INDEX_FILE, LibraryIndex
from forge_pipeline.agents.reward import LibraryReward
from forge_pipeline.agents.rollout import RolloutBatch, RolloutMaker
from forge_pipeline.agents.settings import TASK_KINDS, AgentSettings
from forge_pipeline.agents.tasks import read_tasks
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting.intervals import clustered_interval
from forge_pipeline.reporting.results import Result

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CODE_VERSION = "1"
EPISODES_FILE = "agent_episodes.parquet"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("task_id", pa.string()),
    ("kind", pa.string()),
    ("procedural", pa.bool_()),
    ("decoding", pa.string()),
    ("copy", pa.int32()),
    ("prompt", pa.string()),
    ("expected", pa.string()),
    ("answer", pa.string()),
    ("success", pa.bool_()),
    ("calls", pa.int32()),
    ("invalid_calls", pa.int32()),
]
EPISODE_SCHEMA = pa.schema(_COLUMNS)
# Tasks of one call to the decoder, so that progress can be shown.
PORTION = 60


@dataclass(frozen=True)
class AgentEvaluation:
    """``results`` for people and gates, ``episodes`` as rows of EPISODE_SCHEMA.

    A result's ``detail`` is empty, a kind of task, "corpus" or "made up".
    """

    results: list[Result]
    episodes: list[dict[str, Any]]


def evaluate_agent(
    model: Mistral,
    tokenizer: Tokenizer,
    tasks: Path,
    settings: AgentSettings,
    advance: Callable[[float], None] = lambda _: None,
) -> AgentEvaluation:
    """Play the held-out test tasks: once greedily and ``samples`` times at the settings' temperature.

    The tasks and the random streams depend on the settings alone, so that models compare task by task.
    ``advance`` is told how many tasks have been played. The interval of greedy success is Wilson's; those of
    results with several episodes per task are bootstrapped over tasks.
    """
    chosen = _choose(settings, tasks)
    greedy: RolloutBatch = []
    sampled: RolloutBatch = []
    with LibraryIndex(tasks / INDEX_FILE) as index:
        maker = RolloutMaker(tokenizer, index, LibraryReward(settings.reward, index), settings.episode)
        seed, rows = (settings.evaluation.seed,), settings.policy.rollout_rows
        for start in range(0, len(chosen), PORTION):
            portion = chosen[start : start + PORTION]
            greedy += maker.play(model, portion, 1, temperature=0.0, seed=seed, rows=rows)
            sampled += maker.play(
                model,
                portion,
                settings.evaluation.samples,
                temperature=settings.evaluation.temperature,
                seed=seed,
                rows=rows,
            )
            advance(len(portion))
    episodes = [_row(rollout, "greedy") for rollout in greedy] + [_row(rollout, "sampled") for rollout in sampled]
    return AgentEvaluation(_results(settings, episodes), episodes)


def _choose(settings: AgentSettings, tasks: Path) -> list[Task]:
    held_out = read_tasks(tasks, "test")
    order = np.random.default_rng(settings.evaluation.seed).permutation(len(held_out))
    return [held_out[place] for place in sorted(order[: settings.evaluation.tasks].tolist())]


def _row(rollout: Any, decoding: str) -> dict[str, Any]:
    return {
        "task_id": rollout.task.task_id,
        "kind": rollout.task.kind,
        "procedural": rollout.task.procedural,
        "decoding": decoding,
        "copy": rollout.copy,
        "prompt": rollout.task.prompt,
        "expected": rollout.task.answer,
        "answer": rollout.transcript.answer,
        "success": rollout.reward.success > 0.5,
        "calls": rollout.transcript.calls,
        "invalid_calls": rollout.transcript.invalid_calls,
    }


def _results(settings: AgentSettings, episodes: Sequence[dict[str, Any]]) -> list[Result]:
    results: list[Result] = []
    for decoding in ("greedy", "sampled"):
        of_decoding = [row for row in episodes if row["decoding"] == decoding]
        parts = [("", of_decoding)]
        parts += [(kind, [row for row in of_decoding if row["kind"] == kind]) for kind in TASK_KINDS]
        parts += [
            ("corpus", [row for row in of_decoding if not row["procedural"]]),
            ("made up", [row for row in of_decoding if row["procedural"]]),
        ]
        for detail, rows in parts:
            if rows:
                results.append(_success(settings, f"task_success_{decoding}", rows, detail))
        for metric, value in (
            (f"tool_calls_{decoding}", lambda row: float(row["calls"])),
            (f"invalid_call_rate_{decoding}", lambda row: row["invalid_calls"] / max(row["calls"], 1)),
        ):
            if of_decoding:
                results.append(_mean(settings, metric, of_decoding, value))
    return results


def _success(settings: AgentSettings, metric: str, rows: Sequence[dict[str, Any]], detail: str) -> Result:
    if len({row["task_id"] for row in rows}) < len(rows):
        return _mean(settings, metric, rows, lambda row: float(row["success"]), detail)
    return Result.proportion(metric, [row["success"] for row in rows], "tasks", detail)


def _mean(
    settings: AgentSettings,
    metric: str,
    rows: Sequence[dict[str, Any]],
    value: Callable[[dict[str, Any]], float],
    detail: str = "",
) -> Result:
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["task_id"], []).append(value(row))
    mean = sum(map(sum, groups.values())) / len(rows)
    low, high = clustered_interval(list(groups.values()), settings.evaluation.seed, settings.evaluation.bootstrap)
    return Result(metric, mean, low, high, len(rows), "episodes", detail)
