"""Rollouts are conversations: what is forced is not trained on, and nobody else's presence changes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer

from forge_pipeline.agents.environment import LibraryEnvironment
from forge_pipeline.agents.index import INDEX_FILE, LibraryIndex
from forge_pipeline.agents.reward import LibraryReward
from forge_pipeline.agents.rollout import ROLLOUT_SCHEMA, Rollout, RolloutMaker
from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.agents.tasks import oracle_conversation, read_tasks
from forge_pipeline.agents.tools import tool_schemas
from forge_pipeline.inference import decoder
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.tokens.chat import encode_chat


@pytest.fixture
def index(tasks_folder: Path) -> Iterator[LibraryIndex]:
    with LibraryIndex(tasks_folder / INDEX_FILE) as opened:
        yield opened


@pytest.fixture
def maker(tokenizer: Tokenizer, index: LibraryIndex, settings: AgentSettings) -> RolloutMaker:
    return RolloutMaker(tokenizer, index, LibraryReward(settings.reward, index), settings.episode)


class Puppet:
    """Makes the decoder sample the tokens of given conversations instead of the model's choice."""

    def __init__(self, conversations: list[list[int]], copies: int) -> None:
        self.conversations, self.copies = conversations, copies

    def sample(self, lockstep: decoder._Lockstep, slots: list[int], states: torch.Tensor) -> None:
        for slot in slots:
            row = lockstep.active[slot]
            wanted = self.conversations[row.index // self.copies]
            lockstep._extend(row, wanted[len(row.result.tokens)], -1.0)


def test_an_expert_who_types_its_conversation_earns_everything_and_masks_match_the_chat_format(
    monkeypatch: pytest.MonkeyPatch,
    maker: RolloutMaker,
    model: Mistral,
    tokenizer: Tokenizer,
    index: LibraryIndex,
    tasks_folder: Path,
    settings: AgentSettings,
) -> None:
    tasks = read_tasks(tasks_folder, "test")
    encoded = [
        encode_chat(tokenizer, oracle_conversation(task, LibraryEnvironment(index), index), tool_schemas())
        for task in tasks
    ]
    puppet = Puppet([ids for ids, _ in encoded], copies=2)
    monkeypatch.setattr(decoder._Lockstep, "_sample", lambda *arguments: puppet.sample(*arguments))
    rollouts = maker.play(model, tasks, 2, temperature=1.0, seed=(0,))
    best = 1 + settings.reward.form + settings.reward.efficiency
    for place, rollout in enumerate(rollouts):
        ids, produced = encoded[place // 2]
        assert rollout.decoded.tokens == ids
        # The assistant's tokens are sampled; system, user and tool messages are not.
        assert rollout.decoded.sampled == produced
        assert rollout.reward.total == pytest.approx(best)
        assert rollout.transcript.messages == oracle_conversation(rollout.task, LibraryEnvironment(index), index)


def outline(rollouts: list[Rollout]) -> dict[tuple[str, int], list[int]]:
    return {(rollout.task.task_id, rollout.copy): rollout.decoded.tokens for rollout in rollouts}


def test_a_rollout_depends_on_its_task_and_seed_alone(maker: RolloutMaker, model: Mistral, tasks_folder: Path) -> None:
    tasks = read_tasks(tasks_folder, "test")[:5]
    together = outline(maker.play(model, tasks, 3, temperature=1.0, seed=(4, 2)))
    assert len({tuple(tokens) for tokens in together.values()}) == 15
    assert outline(maker.play(model, tasks[::-1], 3, temperature=1.0, seed=(4, 2), rows=3)) == together
    alone = outline(maker.play(model, tasks[2:3], 2, temperature=1.0, seed=(4, 2)))
    assert alone == {key: together[key] for key in alone}
    assert outline(maker.play(model, tasks, 3, temperature=1.0, seed=(4, 3))) != together


def test_rollouts_of_a_model_that_babbles_are_kept_and_earn_no_success(
    maker: RolloutMaker, model: Mistral, tasks_folder: Path, settings: AgentSettings
) -> None:
    tasks = read_tasks(tasks_folder, "train")[:6]
    rollouts = maker.play(model, tasks, 2, temperature=1.0, seed=(0,))
    table = pa.Table.from_pylist([rollout.row(7) for rollout in rollouts], ROLLOUT_SCHEMA)
    assert table.num_rows == 12
    for rollout in rollouts:
        assert rollout.reward.success == 0.0
        assert len(rollout.decoded.tokens) <= settings.episode.total_tokens
        assert rollout.decoded.prompt_length == len(maker.prompt(rollout.task))
        assert not any(rollout.decoded.sampled[: rollout.decoded.prompt_length])
