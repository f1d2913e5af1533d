"""One conversation between a model and the environment, turn by turn, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from forge_pipeline.agents.environment import LibraryEnvironment, ToolError
from forge_pipeline.agents.questions import SYSTEM
from forge_pipeline.agents.settings import TaskKind
from forge_pipeline.agents.tools import call_message, run_call
from forge_pipeline.tokens.chat import AssistantReply


@dataclass(frozen=True)
class Task:
    """One row of the tasks' table. ``answer`` never reaches the model; ``difficulty`` is the number of tool calls
    that an expert needs; ``container`` is set where the prompt names it."""

    task_id: str
    kind: TaskKind
    split: str
    prompt: str
    answer: str
    names: tuple[str, ...]
    container: str | None
    doc_ids: tuple[str, ...]
    difficulty: int
    procedural: bool

    def opening(self) -> list[dict[str, Any]]:
        """The messages that a conversation about this task begins with."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.prompt}]


@dataclass
class Transcript:
    """What happened. ``answer`` is None where the episode ended without one."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    answer: str | None = None
    turns: int = 0
    calls: int = 0
    invalid_calls: int = 0


class Episode:
    """Feeds a model's replies to the environment. ``finished`` once there is an answer or no turn is left."""

    def __init__(self, task: Task, environment: LibraryEnvironment, turns: int) -> None:
        self._environment, self._turns = environment, turns
        self.transcript = Transcript(task.opening())
        self.finished = False
        environment.reset(task_id=task.task_id, prompt=task.prompt)

    def reply(self, reply: AssistantReply) -> str | None:
        """Take one assistant message; returns the tool's result to go on with, None once the episode is over.

        A call that is malformed or does not fit is answered by a short message, as any tool result.
        """
        transcript = self.transcript
        transcript.turns += 1
        if reply.content is not None:
            transcript.answer = reply.content
            transcript.messages.append({"role": "assistant", "content": reply.content})
            self.finished = True
            return None
        transcript.calls += 1
        if reply.call is not None:
            transcript.messages.append(call_message(reply.call))
        else:
            transcript.messages.append({"role": "assistant", "content": f"({reply.malformed})"})
        result = self._result(reply)
        transcript.messages.append({"role": "tool", "content": result})
        self.finished = transcript.turns >= self._turns
        return None if self.finished else result

    def cut(self) -> None:
        """The model ran into a limit of tokens: the episode is over, without an answer."""
        self.transcript.turns += 1
        self.finished = True

    def _result(self, reply: AssistantReply) -> str:
        try:
            if reply.call is None:
                raise ToolError("malformed call")
            return run_call(self._environment, reply.call)
        except ToolError as error:
            self.transcript.invalid_calls += 1
            return f"error: {error.problem}"
