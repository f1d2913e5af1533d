"""The reward audit: nothing that solves no task may be paid, and the expert must get everything.

It runs before training and stops the line: an agent would find, and keep, whatever it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forge_pipeline.agents.degenerate import DegeneratePolicies, ScriptedPolicy, oracle
from forge_pipeline.agents.environment import LibraryEnvironment
from forge_pipeline.agents.episode import Episode, Task
from forge_pipeline.agents.index import INDEX_FILE, LibraryIndex
from forge_pipeline.agents.reward import MINIMUM_REWARD, LibraryReward, Reward, RewardFunction, normalise
from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.agents.tasks import read_tasks
from forge_pipeline.corpus.tables import write_table
from forge_pipeline.errors import GateError
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Scalar, Table
from forge_pipeline.reporting.intervals import wilson

CODE_VERSION = "1"
AUDIT_FILE = "audit.parquet"
ORACLE = "oracle"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("policy", pa.string()),
    ("task_id", pa.string()),
    ("kind", pa.string()),
    ("answer", pa.string()),
    ("success", pa.float64()),
    ("reward", pa.float64()),
    ("failure", pa.string()),
]
AUDIT_SCHEMA = pa.schema(_COLUMNS)
# Makes the reward to be audited; the one that training uses unless somebody audits their own.
RewardMaker = Callable[[AgentSettings, LibraryIndex], RewardFunction]


@dataclass
class _Scores:
    rewards: list[Reward] = field(default_factory=list)

    @property
    def success(self) -> float:
        return float(np.mean([reward.success for reward in self.rewards]))

    @property
    def total(self) -> float:
        return float(np.mean([reward.total for reward in self.rewards]))

    def interval(self) -> tuple[float, float]:
        return wilson(sum(reward.success > 0.5 for reward in self.rewards), len(self.rewards))


def make_reward(settings: AgentSettings, index: LibraryIndex) -> LibraryReward:
    """The reward that the agent is trained with."""
    return LibraryReward(settings.reward, index)


def audit_rewards(
    settings: AgentSettings, tasks: Path, output: Path, progress: Progress, reward_maker: RewardMaker = make_reward
) -> Outcome:
    """Play degenerate policies and the expert on tasks of all splits; write `audit.parquet`.

    Raises GateError, naming the policy and its score, if a degenerate policy is paid, if the expert does not
    get the best possible reward on every task, if scoring is not deterministic or if a prompt holds its answer.
    """
    chosen = _choose(settings, read_tasks(tasks))
    rows: list[dict[str, Any]] = []
    scores: dict[str, _Scores] = {}
    with LibraryIndex(tasks / INDEX_FILE) as index:
        reward = reward_maker(settings, index)
        policies = {ORACLE: oracle(index), **DegeneratePolicies(index, chosen, settings.audit.seed).by_name()}
        with progress.task("auditing the reward", len(policies), "policies") as bar:
            for name, policy in policies.items():
                scores[name] = _Scores()
                for task in chosen:
                    earned, answer = _play(settings, task, policy, index, reward)
                    scores[name].rewards.append(earned)
                    rows.append(_row(name, task, answer, earned))
                bar.advance()
        unstable = [name for name, policy in policies.items() if _unstable(settings, chosen, policy, index, reward)]
    write_table(output / AUDIT_FILE, AUDIT_SCHEMA, rows)
    checks = _checks(settings, chosen, scores, unstable)
    failed = [check for check in checks if not check.passed]
    if failed:
        raise GateError(
            "the reward audit failed: " + "; ".join(check.description for check in failed),
            where=str(tasks),
            fix="repair the reward or the tasks (not the threshold), then build and audit them again",
        )
    return _outcome(chosen, scores, checks)


def _choose(settings: AgentSettings, tasks: Sequence[Task]) -> list[Task]:
    """Tasks of all splits, held-out ones first: they are what success is reported on."""
    generator = np.random.default_rng(settings.audit.seed)
    order = [tasks[place] for place in generator.permutation(len(tasks)).tolist()]
    order.sort(key=lambda task: task.split == "train")
    held_out = [task for task in order if task.split != "train"][: settings.audit.tasks // 2 or 1]
    trained = [task for task in order if task.split == "train"][: settings.audit.tasks - len(held_out)]
    return held_out + trained


def _play(
    settings: AgentSettings, task: Task, policy: ScriptedPolicy, index: LibraryIndex, reward: RewardFunction
) -> tuple[Reward, str | None]:
    episode = Episode(task, LibraryEnvironment(index), settings.episode.turns)
    policy(task, episode)
    return reward(task, episode.transcript), episode.transcript.answer


def _unstable(
    settings: AgentSettings,
    tasks: Sequence[Task],
    policy: ScriptedPolicy,
    index: LibraryIndex,
    reward: RewardFunction,
) -> bool:
    """Whether playing again, in the reverse order, scores anything differently: then episodes are not isolated,
    or scoring is not deterministic."""
    sample = list(tasks[:20])
    forward = [_play(settings, task, policy, index, reward) for task in sample]
    backward = [_play(settings, task, policy, index, reward) for task in reversed(sample)]
    return forward != backward[::-1]


def _row(policy: str, task: Task, answer: str | None, earned: Reward) -> dict[str, Any]:
    return {
        "policy": policy,
        "task_id": task.task_id,
        "kind": task.kind,
        "answer": None if answer is None else answer[:400],
        "success": earned.success,
        "reward": earned.total,
        "failure": earned.failure,
    }


def _checks(
    settings: AgentSettings, tasks: Sequence[Task], scores: dict[str, _Scores], unstable: list[str]
) -> list[Check]:
    best = 1.0 + settings.reward.form + settings.reward.efficiency
    checks = []
    for name, score in scores.items():
        if name == ORACLE:
            lowest = min(reward.total for reward in score.rewards)
            words = f"the expert's lowest reward is {lowest:.3f} of {best:.3f}, and it has to reach it on every task"
            checks.append(Check("oracle_reaches_the_maximum", abs(lowest - best) < 1e-9, words, lowest, best))
            continue
        most = settings.audit.maximum_degenerate_success
        share, allowed = score.total / best, settings.audit.maximum_degenerate_reward
        words = (
            f"policy {name!r} scores {score.success:.3f} success (at most {most:g} allowed) and {share:.3f} of the "
            f"best reward (at most {allowed:g})"
        )
        passed = score.success <= most and share <= allowed
        checks.append(Check(f"{name}_is_not_paid", passed, words, score.success, most))
    shown = sum(normalise(task.answer).casefold() in task.prompt.casefold() for task in tasks)
    checks.append(Check("prompts_hide_answers", shown == 0, f"{shown} prompts contain their answer", shown, 0))
    words = f"scored differently when played again: {', '.join(unstable) or 'none'}"
    checks.append(Check("scoring_is_deterministic", not unstable, words, len(unstable), 0))
    failures = sum(reward.failure is not None for score in scores.values() for reward in score.rewards)
    checks.append(Check("scoring_never_fails", failures == 0, f"{failures} episodes could not be scored", failures, 0))
    bounds = [reward.total for score in scores.values() for reward in score.rewards]
    inside = bool(np.all(np.isfinite(bounds))) and min(bounds) >= MINIMUM_REWARD and max(bounds) <= best + 1e-9
    words = f"rewards lie from {min(bounds):.3f} to {max(bounds):.3f}, {MINIMUM_REWARD:g} to {best:.3f} allowed"
    checks.append(Check("rewards_are_bounded", inside, words, max(bounds), best))
    return checks


def _outcome(tasks: Sequence[Task], scores: dict[str, _Scores], checks: list[Check]) -> Outcome:
    rows: list[dict[str, Scalar]] = []
    for name, score in scores.items():
        low, high = score.interval()
        rows.append(
            {
                "policy": name.replace("_", " "),
                "success": round(score.success, 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "reward": round(score.total, 4),
            }
        )
    worst = max((name for name in scores if name != ORACLE), key=lambda name: scores[name].success)
    bars = ([row["policy"] for row in rows], [score.success for score in scores.values()])
    return Outcome(
        counts={
            "audited_tasks": len(tasks),
            "policies": len(scores) - 1,
            "oracle_success": scores[ORACLE].success,
            "worst_policy": worst,
            "worst_policy_success": scores[worst].success,
            "worst_policy_reward": max(score.total for name, score in scores.items() if name != ORACLE),
        },
        checks=checks,
        tables=[Table.of("What each policy earns", rows)],
        plots=[Plot("Success by policy", "bar", "policy", "mean success", {"success": bars})],
    )
