"""The reward of an episode: is the answer the one that stands in the database?

Fails closed: whatever goes wrong while scoring earns the least there is, and is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from forge_pipeline.agents.episode import Task, Transcript
from forge_pipeline.agents.index import LibraryIndex
from forge_pipeline.agents.questions import UnanswerableError, solve
from forge_pipeline.agents.settings import RewardSettings

MINIMUM_REWARD = 0.0
LONGEST_ANSWER = 200
_QUOTES = "\"'`"


@dataclass(frozen=True)
class Reward:
    """The parts of one episode's reward. ``success`` is 0 or 1; ``failure`` says what went wrong in scoring."""

    success: float
    form: float
    efficiency: float
    failure: str | None = None

    @property
    def total(self) -> float:
        return self.success + self.form + self.efficiency


# What the audit and the rollouts call: anything of this form can be audited.
RewardFunction = Callable[[Task, Transcript], Reward]
FAILED = Reward(MINIMUM_REWARD, 0.0, 0.0)


class LibraryReward:
    """Task completion, checked against the index and not against the stored answer alone."""

    def __init__(self, settings: RewardSettings, index: LibraryIndex) -> None:
        self.settings, self._index = settings, index
        self.failures = 0

    @property
    def maximum(self) -> float:
        return 1.0 + self.settings.form + self.settings.efficiency

    def __call__(self, task: Task, transcript: Transcript) -> Reward:
        try:
            reward = self._score(task, transcript)
        except Exception as error:  # noqa: BLE001 - a broken verifier must never pay
            self.failures += 1
            return Reward(MINIMUM_REWARD, 0.0, 0.0, f"{type(error).__name__}: {error}")
        if not math.isfinite(reward.total) or not MINIMUM_REWARD <= reward.total <= self.maximum + 1e-9:
            self.failures += 1
            return Reward(MINIMUM_REWARD, 0.0, 0.0, f"a reward of {reward.total}")
        return reward

    def _score(self, task: Task, transcript: Transcript) -> Reward:
        solution = solve(self._index, task.kind, task.names, task.container)
        if solution != task.answer:
            raise UnanswerableError(f"the stored answer {task.answer!r} is not that of the index, {solution!r}")
        answer = transcript.answer
        if answer is None or not answer.strip():
            return FAILED
        well_formed = transcript.invalid_calls == 0 and len(answer) <= LONGEST_ANSWER
        form = self.settings.form if well_formed else 0.0
        if normalise(answer) != normalise(solution):
            return Reward(0.0, form, 0.0)
        # Fewer calls than the expert's are a lucky guess, and no better than the expert.
        effort = min(1.0, task.difficulty / max(transcript.calls, 1))
        return Reward(1.0, form, self.settings.efficiency * effort)


def normalise(answer: str) -> str:
    """The answer without white space around it, one pair of quotes and a final full stop; case counts."""
    text = answer.strip()
    if text.endswith("."):
        text = text[:-1].rstrip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in _QUOTES:
        text = text[1:-1].strip()
    return text
