"""A sound reward passes the audit; each way to be cheated is named and stops the line."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from forge_pipeline.agents.audit import AUDIT_FILE, RewardMaker, audit_rewards
from forge_pipeline.agents.degenerate import POLICIES
from forge_pipeline.agents.episode import Task, Transcript
from forge_pipeline.agents.index import LibraryIndex
from forge_pipeline.agents.reward import LibraryReward, Reward, RewardFunction
from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.agents.tasks import TASK_SCHEMA, TASKS_FILE, read_tasks
from forge_pipeline.corpus.tables import write_table
from forge_pipeline.errors import GateError
from forge_pipeline.reporting import SilentProgress


def hackable(pays: str) -> RewardMaker:
    """A reward maker with one deliberate weakness."""

    def make(settings: AgentSettings, index: LibraryIndex) -> RewardFunction:
        sound, counter = LibraryReward(settings.reward, index), itertools.count()

        def score(task: Task, transcript: Transcript) -> Reward:
            honest, answer = sound(task, transcript), transcript.answer or ""
            paid = {
                "containment": task.answer in answer,
                "empty_answer": not answer,
                "tool_use": transcript.calls > 0,
                "claimed_success": "SUCCESS" in answer,
                "long_calls": transcript.calls >= 4,
                "near_miss": abs(len(answer) - len(task.answer)) <= 1 and transcript.calls > 0,
                "prompt": answer == task.prompt,
            }
            if pays == "coin":
                return dataclasses.replace(honest, form=0.01 * (next(counter) % 5))
            return Reward(1.0, 0.05, 0.05) if paid[pays] else honest

        return score

    return make


def test_the_shipped_reward_passes(tasks_folder: Path, settings: AgentSettings, tmp_path: Path) -> None:
    outcome = audit_rewards(settings, tasks_folder, tmp_path, SilentProgress())
    assert all(check.passed for check in outcome.checks)
    assert outcome.counts["oracle_success"] == 1.0
    assert outcome.counts["policies"] == len(POLICIES)
    rows = pq.read_table(tmp_path / AUDIT_FILE).to_pylist()
    assert {row["policy"] for row in rows} == {"oracle", *POLICIES}
    assert len(rows) == (len(POLICIES) + 1) * outcome.counts["audited_tasks"]


def test_auditing_again_gives_the_same_bytes(tasks_folder: Path, settings: AgentSettings, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        audit_rewards(settings, tasks_folder, tmp_path / name, SilentProgress())
    assert (tmp_path / "a" / AUDIT_FILE).read_bytes() == (tmp_path / "b" / AUDIT_FILE).read_bytes()


@pytest.mark.parametrize(
    ("pays", "policy"),
    [
        ("containment", "every_candidate"),
        ("containment", "listed_results"),
        ("empty_answer", "empty"),
        ("tool_use", "form_only"),
        ("tool_use", "malformed_spam"),
        ("claimed_success", "injected_reward"),
        ("long_calls", "tool_spam"),
        ("near_miss", "mutated_oracle"),
        ("prompt", "copied_prompt"),
    ],
)
def test_a_hackable_reward_is_stopped_with_the_policy_named(
    pays: str, policy: str, tasks_folder: Path, settings: AgentSettings, tmp_path: Path
) -> None:
    with pytest.raises(GateError, match=f"policy '{policy}' scores"):
        audit_rewards(settings, tasks_folder, tmp_path, SilentProgress(), hackable(pays))


def test_a_reward_that_depends_on_chance_is_stopped(
    tasks_folder: Path, settings: AgentSettings, tmp_path: Path
) -> None:
    with pytest.raises(GateError, match="scored differently when played again"):
        audit_rewards(settings, tasks_folder, tmp_path, SilentProgress(), hackable("coin"))


def test_a_reward_that_the_expert_cannot_earn_is_stopped(
    tasks_folder: Path, settings: AgentSettings, tmp_path: Path
) -> None:
    def stingy(settings: AgentSettings, index: LibraryIndex) -> RewardFunction:
        sound = LibraryReward(settings.reward, index)
        return lambda task, transcript: Reward(0.0, 0.0, 0.0) if task.kind == "both" else sound(task, transcript)

    with pytest.raises(GateError, match=r"the expert's lowest reward is 0\.000"):
        audit_rewards(settings, tasks_folder, tmp_path, SilentProgress(), stingy)


def test_too_few_turns_make_tasks_unreachable_and_are_stopped(
    tasks_folder: Path, settings: AgentSettings, tmp_path: Path
) -> None:
    hurried = settings.model_copy(update={"episode": settings.episode.model_copy(update={"turns": 2})})
    with pytest.raises(GateError, match="the expert's lowest reward"):
        audit_rewards(hurried, tasks_folder, tmp_path, SilentProgress())


def test_tasks_with_a_frequent_answer_are_stopped(tasks_folder: Path, settings: AgentSettings, tmp_path: Path) -> None:
    tasks = read_tasks(tasks_folder)
    chosen = [task for task in tasks if task.kind == "where"][:4]
    rows = [vars(task) | {"names": list(task.names), "doc_ids": list(task.doc_ids)} for task in chosen]
    skewed = tmp_path / "skewed"
    skewed.mkdir()
    (skewed / "index.sqlite").write_bytes((tasks_folder / "index.sqlite").read_bytes())
    write_table(skewed / TASKS_FILE, TASK_SCHEMA, rows)
    with pytest.raises(GateError, match=r"policy 'constant' scores 0\.250 success"):
        audit_rewards(settings, skewed, tmp_path, SilentProgress())
