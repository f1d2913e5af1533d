"""Only the database's answer is a success, nothing outweighs it, and what breaks earns nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from forge_pipeline.agents.episode import Task, Transcript
from forge_pipeline.agents.index import INDEX_FILE, LibraryIndex
from forge_pipeline.agents.reward import MINIMUM_REWARD, LibraryReward, normalise
from forge_pipeline.agents.settings import AgentSettings, RewardSettings
from forge_pipeline.agents.tasks import read_tasks


@pytest.fixture
def index(tasks_folder: Path) -> Iterator[LibraryIndex]:
    with LibraryIndex(tasks_folder / INDEX_FILE) as opened:
        yield opened


@pytest.fixture
def reward(index: LibraryIndex, settings: AgentSettings) -> LibraryReward:
    return LibraryReward(settings.reward, index)


@pytest.fixture
def task(tasks_folder: Path) -> Task:
    return next(task for task in read_tasks(tasks_folder, "test") if task.difficulty == 2)


def played(answer: str | None, calls: int = 2, invalid: int = 0) -> Transcript:
    return Transcript(answer=answer, turns=calls + 1, calls=calls, invalid_calls=invalid)


def test_the_experts_way_earns_the_most_there_is(reward: LibraryReward, task: Task) -> None:
    assert reward(task, played(task.answer)).total == pytest.approx(reward.maximum)
    assert reward(task, played(f' "{task.answer}". ')).success == 1.0


def test_wasted_and_malformed_calls_cost_something_but_less_than_success(reward: LibraryReward, task: Task) -> None:
    best = reward(task, played(task.answer))
    wasteful = reward(task, played(task.answer, calls=4))
    clumsy = reward(task, played(task.answer, calls=3, invalid=1))
    tidy_failure = reward(task, played("something else"))
    assert best.total > wasteful.total > clumsy.total > 1.0 > 0.25 > tidy_failure.total > 0.0


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(answer=st.none() | st.text(max_size=60), calls=st.integers(0, 9), invalid=st.integers(0, 9))
def test_no_wrong_answer_comes_near_a_right_one(
    reward: LibraryReward, task: Task, answer: str | None, calls: int, invalid: int
) -> None:
    earned = reward(task, played(answer, calls, min(invalid, calls)))
    assert MINIMUM_REWARD <= earned.total <= reward.maximum
    if answer is None or normalise(answer) != task.answer:
        assert earned.success == 0.0
        assert earned.total <= 0.25


@pytest.mark.parametrize("change", ["{0}x", "{0} {0}", "the answer is {0}", "{0}, other", "''{0}", "{0}\n{0}"])
def test_an_answer_that_only_contains_the_right_one_is_wrong(reward: LibraryReward, task: Task, change: str) -> None:
    assert reward(task, played(change.format(task.answer))).success == 0.0


def test_a_stored_answer_that_the_index_contradicts_earns_nothing_and_is_counted(
    reward: LibraryReward, task: Task
) -> None:
    forged = dataclasses.replace(task, answer="forged")
    earned = reward(forged, played("forged"))
    assert (earned.total, reward.failures) == (MINIMUM_REWARD, 1)
    assert earned.failure is not None
    assert "forged" in earned.failure


def test_a_verifier_that_breaks_pays_nothing(reward: LibraryReward, index: LibraryIndex, task: Task) -> None:
    index.close()
    earned = reward(task, played(task.answer))
    assert (earned.total, reward.failures) == (MINIMUM_REWARD, 1)


def test_a_reward_that_is_no_number_pays_nothing(index: LibraryIndex, task: Task) -> None:
    broken = LibraryReward(RewardSettings.model_construct(form=math.nan, efficiency=0.0), index)
    earned = broken(task, played(task.answer))
    assert (earned.total, broken.failures) == (MINIMUM_REWARD, 1)


def test_settings_that_let_form_compete_with_success_are_refused() -> None:
    with pytest.raises(ValueError, match="compete"):
        RewardSettings(form=0.3)
