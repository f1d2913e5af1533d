"""Rollouts: groups of conversations about each task, decoded in lockstep with the tools' results forced in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from forge_pipeline.agents.environment import LibraryEnvironment
from forge_pipeline.agents.episode import Episode, Task, Transcript
from forge_pipeline.agents.index import LibraryIndex
from forge_pipeline.agents.reward import Reward, RewardFunction
from forge_pipeline.agents.settings import EpisodeSettings
from forge_pipeline.agents.tools import tool_schemas
from forge_pipeline.inference.decoder import Decoded, Decoder, DecodingLimits, Segment
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.tokens.chat import encode_prompt, encode_text, parse_assistant, special_ids, stop_ids
from forge_pipeline.tokens.special_tokens import ASSISTANT, END_OF_MESSAGE, TOOL

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("step", pa.int64()),
    ("task_id", pa.string()),
    ("kind", pa.string()),
    ("copy", pa.int32()),
    ("messages", pa.string()),
    ("answer", pa.string()),
    ("expected", pa.string()),
    ("success", pa.float64()),
    ("form", pa.float64()),
    ("efficiency", pa.float64()),
    ("reward", pa.float64()),
    ("advantage", pa.float64()),
    ("turns", pa.int32()),
    ("calls", pa.int32()),
    ("invalid_calls", pa.int32()),
    ("sampled_tokens", pa.int32()),
    ("failure", pa.string()),
]
ROLLOUT_SCHEMA = pa.schema(_COLUMNS)


@dataclass
class Rollout:
    """One conversation. ``decoded`` holds its tokens, which of them the model sampled, and their
    log-probabilities; prompts and tool results are not sampled and never trained on."""

    task: Task
    copy: int
    decoded: Decoded
    transcript: Transcript
    reward: Reward
    advantage: float = 0.0

    def row(self, step: int) -> dict[str, Any]:
        """The rollout as a row of ROLLOUT_SCHEMA."""
        return {
            "step": step,
            "task_id": self.task.task_id,
            "kind": self.task.kind,
            "copy": self.copy,
            "messages": json.dumps(self.transcript.messages, ensure_ascii=False),
            "answer": self.transcript.answer,
            "expected": self.task.answer,
            "success": self.reward.success,
            "form": self.reward.form,
            "efficiency": self.reward.efficiency,
            "reward": self.reward.total,
            "advantage": self.advantage,
            "turns": self.transcript.turns,
            "calls": self.transcript.calls,
            "invalid_calls": self.transcript.invalid_calls,
            "sampled_tokens": sum(self.decoded.sampled),
            "failure": self.reward.failure,
        }


# One step's rollouts: those of a task stand together, in the order of its copies.
RolloutBatch = list[Rollout]


class RolloutMaker:
    """Lets a model play tasks. Episodes are isolated: each has its own environment over the read-only index."""

    def __init__(
        self, tokenizer: Tokenizer, index: LibraryIndex, reward: RewardFunction, limits: EpisodeSettings
    ) -> None:
        """``tokenizer`` is one from `tokens.chat.load_tokenizer`."""
        self._tokenizer = tokenizer
        self._index, self._reward, self._limits = index, reward, limits
        self._tools = tool_schemas()
        self._stops = frozenset(stop_ids(self._tokenizer))
        ids = special_ids(tokenizer)
        self._tool_id, self._end_id, self._assistant_id = ids[TOOL], ids[END_OF_MESSAGE], ids[ASSISTANT]

    def prompt(self, task: Task) -> list[int]:
        return encode_prompt(self._tokenizer, task.opening(), self._tools)

    def tool_result(self, text: str) -> list[int]:
        """What is forced after a call: the tool's message and the opening of the next turn."""
        return [self._tool_id, *encode_text(self._tokenizer, text), self._end_id, self._assistant_id]

    def play(
        self,
        model: Mistral,
        tasks: Sequence[Task],
        copies: int,
        *,
        temperature: float,
        seed: Sequence[int],
        rows: int = 128,
        dtype: torch.dtype | None = None,
    ) -> RolloutBatch:
        """``copies`` conversations about each task. Copy c of task t draws from the stream (seed, t's id, c),
        so that who else is played, and on which rank, changes nothing. Tasks too long to play score as failed.
        """
        prompts = [self.prompt(task) for task in tasks]
        episodes = [
            Episode(task, LibraryEnvironment(self._index), self._limits.turns) for task in tasks for _ in range(copies)
        ]
        capacity = min(self._limits.total_tokens, model.config.context_length)

        def continuation(segment: Segment) -> list[int] | None:
            episode = episodes[segment.row]
            if segment.end_token != self._end_id:
                episode.cut()
                return None
            result = episode.reply(parse_assistant(self._tokenizer, segment.tokens))
            return None if result is None else self.tool_result(result)

        decoded = Decoder(model, dtype).decode(
            prompts,
            copies,
            limits=DecodingLimits(capacity, self._limits.turn_tokens, rows),
            stop_ids=self._stops,
            temperature=temperature,
            streams=[(*seed, int(task.task_id, 16), copy) for task in tasks for copy in range(copies)],
            continuation=continuation,
        )
        return [
            Rollout(
                task=tasks[row // copies],
                copy=row % copies,
                decoded=result,
                transcript=episodes[row].transcript,
                reward=self._reward(tasks[row // copies], episodes[row].transcript),
            )
            for row, result in enumerate(decoded)
        ]
