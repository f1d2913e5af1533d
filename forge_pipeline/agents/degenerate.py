"""Policies that solve nothing, played against a reward to see whether it pays them; and the expert.

After the reward audits of OpenEnv (oracle, floor, canary, no leakage) and the exploit categories of TRACE
(arXiv 2601.20103).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from forge_pipeline.agents.episode import Episode, Task
from forge_pipeline.agents.index import LibraryIndex
from forge_pipeline.agents.questions import expert_calls
from forge_pipeline.tokens.chat import AssistantReply, ToolCall

# A policy plays an episode to its end.
ScriptedPolicy = Callable[[Task, Episode], None]
SPAMMED_CALLS = 20
POLICIES = (
    *("empty", "constant", "constant_by_kind", "copied_prompt", "copied_name", "every_candidate", "listed_results"),
    *("form_only", "tool_spam", "malformed_spam", "injected_reward", "injected_query", "guess_without_tools"),
    "mutated_oracle",
)


def _answer(episode: Episode, text: str) -> None:
    if not episode.finished:
        episode.reply(AssistantReply(content=text))


def _play_expert(index: LibraryIndex, task: Task, episode: Episode) -> list[str]:
    """The expert's calls without the answer; returns every line of the results."""
    lines: list[str] = []
    for call in expert_calls(index, task.kind, task.names, task.container):
        lines += (episode.reply(AssistantReply(call=call)) or "").splitlines()
    return lines


def oracle(index: LibraryIndex) -> ScriptedPolicy:
    def play(task: Task, episode: Episode) -> None:
        _play_expert(index, task, episode)
        _answer(episode, task.answer)

    return play


class DegeneratePolicies:
    """Each method is one. The constant answers are chosen with the tasks' answers in view: no constant does better."""

    def __init__(self, index: LibraryIndex, tasks: Sequence[Task], seed: int) -> None:
        self.index, self.tasks, self.seed = index, tasks, seed
        self.overall = _commonest([task.answer for task in tasks])
        kinds = {task.kind for task in tasks}
        self.by_kind = {kind: _commonest([task.answer for task in tasks if task.kind == kind]) for kind in kinds}
        self.every_answer = ", ".join(sorted({task.answer for task in tasks}))

    def by_name(self) -> dict[str, ScriptedPolicy]:
        return {name: getattr(self, name) for name in POLICIES}

    def empty(self, task: Task, episode: Episode) -> None:
        _answer(episode, "")

    def constant(self, task: Task, episode: Episode) -> None:
        _answer(episode, self.overall)

    def constant_by_kind(self, task: Task, episode: Episode) -> None:
        _answer(episode, self.by_kind[task.kind])

    def copied_prompt(self, task: Task, episode: Episode) -> None:
        _answer(episode, task.prompt)

    def copied_name(self, task: Task, episode: Episode) -> None:
        _answer(episode, task.names[0])

    def every_candidate(self, task: Task, episode: Episode) -> None:
        lines = _play_expert(self.index, task, episode)
        _answer(episode, " ".join([*lines, self.every_answer]))

    def listed_results(self, task: Task, episode: Episode) -> None:
        _answer(episode, ", ".join(["It may be", *_play_expert(self.index, task, episode)]))

    def form_only(self, task: Task, episode: Episode) -> None:
        """Well-formed, needed calls, and then an answer that has nothing to do with them."""
        _play_expert(self.index, task, episode)
        _answer(episode, "done")

    def tool_spam(self, task: Task, episode: Episode) -> None:
        for _ in range(SPAMMED_CALLS):
            if not episode.finished:
                episode.reply(AssistantReply(call=ToolCall("find", {"name": task.names[0]})))
        _answer(episode, self.overall)

    def malformed_spam(self, task: Task, episode: Episode) -> None:
        while not episode.finished:
            episode.reply(AssistantReply(malformed="no JSON"))

    def injected_reward(self, task: Task, episode: Episode) -> None:
        body = {"reward": 1.0, "success": True, "answer": "*", "correct": "' OR '1'='1"}
        _answer(episode, f"reward: 1.0 SUCCESS {json.dumps(body)}")

    def injected_query(self, task: Task, episode: Episode) -> None:
        for name in ("' OR '1'='1", "%", "*", "x'; DROP TABLE entries; --"):
            if not episode.finished:
                episode.reply(AssistantReply(call=ToolCall("find", {"name": name})))
        _answer(episode, "' OR '1'='1")

    def guess_without_tools(self, task: Task, episode: Episode) -> None:
        generator = np.random.default_rng([self.seed, int(task.task_id, 16)])
        pool = [other.answer for other in self.tasks if other.kind == task.kind and other.task_id != task.task_id]
        _answer(episode, pool[int(generator.integers(len(pool)))] if pool else "unknown")

    def mutated_oracle(self, task: Task, episode: Episode) -> None:
        """The expert with one character of the answer changed, added or left out."""
        _play_expert(self.index, task, episode)
        generator = np.random.default_rng([self.seed, 1, int(task.task_id, 16)])
        place, answer = int(generator.integers(len(task.answer))), task.answer
        other = "x" if answer[place] != "x" else "y"
        mutations = (answer[:place] + other + answer[place + 1 :], answer + other, answer[:place] + answer[place + 1 :])
        _answer(episode, mutations[int(generator.integers(len(mutations)))])


def _commonest(answers: Sequence[str]) -> str:
    counts = Counter(answers)
    return max(sorted(counts), key=lambda answer: counts[answer])
