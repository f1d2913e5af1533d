"""GRPO's loss is its formula, its batches are a function of (seed, step, rank), and a rank's share adds up."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.agents.episode import Task, Transcript
from forge_pipeline.agents.objective import (
    ROLLOUTS_FILE,
    GroupRelativePolicyObjective,
    divergence,
    group_advantages,
    policy_loss,
)
from forge_pipeline.agents.reward import LibraryReward, Reward
from forge_pipeline.agents.settings import AgentSettings, PolicySettings
from forge_pipeline.errors import TrainingError
from forge_pipeline.models.files import save_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.training.objective import TrainingContext

MakeObjective = Callable[..., GroupRelativePolicyObjective]


@pytest.fixture
def make_objective(
    settings: AgentSettings, model: Mistral, tasks_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> MakeObjective:
    save_model(model, tmp_path / "model", tokenizer_folder)
    kept = tmp_path / "rollouts"
    kept.mkdir()

    def make(
        rank: int = 0,
        world_size: int = 1,
        sum_over_ranks: Callable[[float], float] = lambda value: value,
        **policy: float,
    ) -> GroupRelativePolicyObjective:
        chosen = PolicySettings(group_size=4, tasks_per_step=4, sampled_steps=2).model_copy(update=policy)
        context = TrainingContext(
            model=model,
            device=torch.device("cpu"),
            tokenizer_folder=tokenizer_folder,
            seed=3,
            rank=rank,
            world_size=world_size,
            micro_batch=3,
            sum_over_ranks=sum_over_ranks,
        )
        body = {
            "agent": settings.model_copy(update={"policy": chosen}).model_dump(mode="json"),
            "tasks": str(tasks_folder),
            "initial_model": str(tmp_path / "model"),
            "steps": 5,
            "rollouts": str(kept),
        }
        return GroupRelativePolicyObjective(body, context)

    return make


@pytest.fixture
def paid_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model solves nothing; here it is paid for the characters that it writes, so that groups differ."""

    def score(self: LibraryReward, task: Task, transcript: Transcript) -> Reward:
        characters = sum(len(message["content"]) for message in transcript.messages)
        return Reward(0.0, (characters % 7) / 20, 0.0)

    monkeypatch.setattr(LibraryReward, "__call__", score)


@pytest.fixture
def paid_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LibraryReward, "__call__", lambda *_: Reward(0.0, 0.0, 0.0))


@given(st.lists(st.floats(0, 1.1, allow_nan=False), min_size=2, max_size=16), st.floats(0.001, 1))
def test_advantages_are_centred_ordered_and_bounded(rewards: list[float], floor: float) -> None:
    advantages = group_advantages(rewards, floor)
    assert sum(advantages) == pytest.approx(0, abs=1e-6)
    for first, second in zip(np.argsort(rewards), np.argsort(rewards)[1:], strict=False):
        assert advantages[first] <= advantages[second] + 1e-9
    # No member can be further from the mean than the square root of the group's size, in deviations.
    assert max(map(abs, advantages)) <= math.sqrt(len(rewards))


def test_advantages_are_those_of_the_paper_without_a_floor() -> None:
    rewards = [1.0, 0.0, 0.0, 1.0, 1.0]
    expected = (np.array(rewards) - np.mean(rewards)) / np.std(rewards)
    assert group_advantages(rewards, 0.0) == pytest.approx(expected.tolist())
    assert group_advantages([0.3] * 4, 0.0) == [0.0] * 4


def test_small_differences_weigh_little() -> None:
    form_only = group_advantages([0.05, 0.0, 0.0, 0.05], 0.1)
    success = group_advantages([1.05, 0.0, 0.0, 1.05], 0.1)
    assert max(form_only) < 0.25 * max(success)


def test_the_loss_is_the_clipped_formula() -> None:
    """By hand: -min(ratio * A, clip(ratio, 0.8, 1.28) * A)."""
    cases = [
        # log ratio, advantage, expected, held back by the clip
        (0.0, 1.5, -1.5, False),
        (math.log(1.2), 1.0, -1.2, False),
        (math.log(1.5), 1.0, -1.28, True),
        (math.log(1.5), -1.0, 1.5, False),
        (math.log(0.5), -2.0, 1.6, True),
        (math.log(0.5), 2.0, -1.0, False),
    ]
    log_ratio, advantages, expected, held = (torch.tensor(column) for column in zip(*cases, strict=True))
    sampled = torch.full_like(log_ratio, -2.0)
    losses, clipped = policy_loss(sampled + log_ratio, sampled, advantages, 0.2, 0.28)
    torch.testing.assert_close(losses, expected)
    assert clipped.tolist() == held.tolist()


def test_divergence_is_its_formula_and_never_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(100, generator=generator), torch.randn(100, generator=generator)
    expected = [math.exp(r - p) - (r - p) - 1 for p, r in zip(policy.tolist(), reference.tolist(), strict=True)]
    assert divergence(policy, reference).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(divergence(policy, reference).min()) >= 0
    assert divergence(policy, policy).abs().max() == 0


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
def test_a_steps_loss_is_the_formula_over_its_rollouts(
    make_objective: MakeObjective, model: Mistral, paid_by_length: None, coefficient: float
) -> None:
    objective = make_objective(kl_coefficient=coefficient, temperature=0.8)
    rollouts = objective.rollouts(0)
    expected, units = 0.0, 0
    for group in (rollouts[start : start + 4] for start in range(0, len(rollouts), 4)):
        rewards = np.array([rollout.reward.total for rollout in group])
        if rewards.std() == 0:
            continue
        for rollout, reward in zip(group, rewards, strict=True):
            advantage = (reward - rewards.mean()) / (rewards.std() + 0.1)
            if advantage == 0:
                continue
            tokens = torch.tensor([rollout.decoded.tokens])
            with torch.no_grad():
                log_probs = torch.log_softmax(model(tokens)[0] / 0.8, -1)
            for place, sampled in enumerate(rollout.decoded.sampled):
                if sampled:
                    ratio = math.exp(log_probs[place - 1, tokens[0, place]] - rollout.decoded.log_probs[place])
                    expected -= min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
                    units += 1
    batches = objective.micro_batches(0)
    assert sum(batch.weight for batch in batches) == units
    assert len(batches) > 1
    total = sum(float(objective.loss(batch)[0].detach()) for batch in batches)
    # The initial model is the current one: its divergence is nothing, whatever the coefficient.
    assert total == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_sampler_and_the_trained_model_agree(make_objective: MakeObjective, paid_by_length: None) -> None:
    objective = make_objective()
    for batch in objective.micro_batches(1):
        _, sums = objective.loss(batch)
        assert sums["ratio_deviation"] / batch.weight < 1e-4
        assert sums["clipped_fraction"] == 0


def test_gradients_raise_what_was_better_than_its_group(
    make_objective: MakeObjective, model: Mistral, paid_by_length: None
) -> None:
    objective = make_objective()
    batch = objective.micro_batches(0)[0]
    model.zero_grad()
    objective.loss(batch)[0].backward()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 1e-3 * parameter.grad
        improved = float(objective.loss(batch)[0])
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
        original = float(objective.loss(batch)[0])
    model.zero_grad(set_to_none=True)
    assert improved < original


def test_a_step_played_again_is_the_same_and_other_steps_differ(
    make_objective: MakeObjective, paid_by_length: None
) -> None:
    first, again = make_objective().micro_batches(2), make_objective().micro_batches(2)
    assert len(first) == len(again)
    for one, other in zip(first, again, strict=True):
        for name, tensor in one.tensors.items():
            assert torch.equal(tensor, other.tensors[name]), name
    objective = make_objective()
    assert [task.task_id for task in objective.tasks_of(0)] != [task.task_id for task in objective.tasks_of(1)]


def test_an_epoch_plays_every_training_task_once(make_objective: MakeObjective) -> None:
    objective = make_objective()
    count = len(objective._tasks)
    played = [task.task_id for step in range(count // 4) for task in objective.tasks_of(step)]
    assert len(played) == len(set(played)) == count - count % 4


def test_ranks_share_a_step_and_play_what_one_rank_would(make_objective: MakeObjective, paid_by_length: None) -> None:
    whole = make_objective().rollouts(1)
    shares = [make_objective(rank, 2).rollouts(1) for rank in range(2)]
    expected = {(r.task.task_id, r.copy): (r.decoded.tokens, r.advantage) for r in whole}
    found = {(r.task.task_id, r.copy): (r.decoded.tokens, r.advantage) for share in shares for r in share}
    assert found == expected


def test_a_rank_without_useful_rollouts_makes_as_many_micro_batches(
    make_objective: MakeObjective, paid_nothing: None
) -> None:
    # As on a rank whose partner has seven useful rollouts and 100 units, while nothing here succeeds.
    answers = iter([7.0, 0.0, 100.0])
    objective = make_objective(0, 2, lambda value: value + next(answers))
    batches = objective.micro_batches(0)
    assert len(batches) == 3
    for batch in batches:
        loss, _ = objective.loss(batch)
        loss.backward()
        assert (batch.weight, float(loss.detach())) == (0.0, 0.0)


def test_a_step_in_which_nothing_differs_has_no_gradient_and_no_division_by_zero(
    make_objective: MakeObjective, paid_nothing: None
) -> None:
    objective = make_objective()
    batches = objective.micro_batches(0)
    assert [batch.weight for batch in batches] == [1.0]
    loss, sums = objective.loss(batches[0])
    assert float(loss.detach()) == 0.0
    assert all(math.isfinite(value) for value in sums.values())


def test_reported_means_are_over_all_rollouts(make_objective: MakeObjective, paid_by_length: None) -> None:
    objective = make_objective()
    rollouts = objective.rollouts(0)
    batches = objective.micro_batches(0)
    units = sum(batch.weight for batch in batches)
    totals: dict[str, float] = {}
    for batch in batches:
        for name, value in objective.loss(batch)[1].items():
            totals[name] = totals.get(name, 0.0) + value / units
    assert totals["reward"] == pytest.approx(np.mean([rollout.reward.total for rollout in rollouts]))
    assert totals["turns"] == pytest.approx(np.mean([rollout.transcript.turns for rollout in rollouts]))


def test_kept_rollouts_survive_a_resume_and_hold_every_ranks_share(
    make_objective: MakeObjective, tmp_path: Path
) -> None:
    # Steps 0 and 4 of 5 are kept. The first process is gone before the last step.
    whole = make_objective()
    whole.micro_batches(0)
    whole.micro_batches(1)
    for rank in (1, 0):
        # Resumed on two ranks, which play step 0 again and then the last one.
        resumed = make_objective(rank, 2)
        resumed.micro_batches(0)
        resumed.micro_batches(4)
    resumed.finish(tmp_path)
    rows = pq.read_table(tmp_path / ROLLOUTS_FILE).to_pylist()
    keys = [(row["step"], row["task_id"], row["copy"]) for row in rows]
    assert keys == sorted(set(keys))
    expected = {(step, task.task_id, copy) for step in (0, 4) for task in whole.tasks_of(step) for copy in range(4)}
    assert set(keys) == expected


def test_tasks_that_ranks_cannot_share_evenly_are_refused(make_objective: MakeObjective) -> None:
    with pytest.raises(TrainingError, match="cannot be shared evenly by 3 ranks"):
        make_objective(0, 3)
