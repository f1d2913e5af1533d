"""A packaged model answering a person, with its tools where it has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forge_pipeline.agents.environment import LibraryEnvironment, ToolError
from forge_pipeline.agents.questions import SYSTEM
from forge_pipeline.agents.tools import call_message, run_call, tool_schemas
from forge_pipeline.inference.generate import generate
from forge_pipeline.models.files import load_model
from forge_pipeline.tokens.chat import AssistantReply, encode_prompt, load_tokenizer, parse_assistant, stop_ids

CALLS_PER_ANSWER = 4


class Assistant:
    """Answers one question at a time: a model this small has no room for a history."""

    def __init__(self, model: Path, index: Path | None, *, temperature: float = 0.0, seed: int = 0) -> None:
        """``model`` is a folder in the Hugging Face layout; ``index`` the library that its tools ask, if any."""
        self._model = load_model(model).eval()
        self._tokenizer = load_tokenizer(model)
        self._environment = LibraryEnvironment(index) if index is not None else None
        self._temperature = temperature
        self._seed = seed

    def answer(self, question: str, max_new_tokens: int) -> list[dict[str, Any]]:
        """The conversation about one question: its messages with tool calls and results, the answer last."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        if self._environment is None:
            reply = self._reply(messages, None, max_new_tokens)
            return [*messages, {"role": "assistant", "content": reply.content or reply.malformed or ""}]
        messages.insert(0, {"role": "system", "content": SYSTEM})
        self._environment.reset()
        for _ in range(CALLS_PER_ANSWER):
            reply = self._reply(messages, tool_schemas(), max_new_tokens)
            if reply.call is None:
                break
            messages.append(call_message(reply.call))
            try:
                result = run_call(self._environment, reply.call)
            except ToolError as error:
                result = f"error: {error.problem}"
            messages.append({"role": "tool", "content": result})
        text = reply.content if reply.content is not None else f"(no answer: {reply.malformed or 'out of calls'})"
        return [*messages, {"role": "assistant", "content": text}]

    def _reply(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, max_new_tokens: int
    ) -> AssistantReply:
        prompt = encode_prompt(self._tokenizer, messages, tools)
        room = self._model.config.context_length - len(prompt)
        if room < 1:
            return AssistantReply(content="(the conversation no longer fits the model's context)")
        stops = stop_ids(self._tokenizer)
        (tokens,) = generate(
            self._model, [prompt], min(max_new_tokens, room), self._temperature, self._seed, stop_ids=stops
        )
        return parse_assistant(self._tokenizer, tokens)
