"""Conversations as tokens and back.

The same format twice: as the Jinja template that travels with a model and that transformers, vLLM and llama.cpp
render, and as a direct implementation that needs none of them. The two give the same ids for any conversation
whose texts contain no special token. Where they do, only the direct implementation keeps them what they are,
ordinary text, so that nobody can write a turn of another role by typing ``<|end|><|system|>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from forge_pipeline.errors import ForgeError, StorageError
from forge_pipeline.tokens.special_tokens import (
    ASSISTANT,
    CALL,
    END_OF_DOCUMENT,
    END_OF_MESSAGE,
    SPECIAL_TOKENS,
    SYSTEM,
    TOOL,
    USER,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Message = Mapping[str, Any]
ToolDefinition = Mapping[str, Any]

TOKENIZER_FILE = "tokenizer.json"
_MARKERS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL}
_CALL_FORM = re.compile(r"(\S+) (\{.*\})", re.DOTALL)

# White space between tags is cut by the dashes; what is printed stands in the expressions.
CHAT_TEMPLATE = """\
{%- set first = messages[0] if messages else {} -%}
{%- set has_system = first['role'] == 'system' -%}
{%- set instructions = first['content'] if has_system else '' -%}
{%- if has_system or tools -%}
    {{- '<|system|>' + instructions -}}
    {%- for tool in (tools or []) -%}
        {%- set function = tool['function'] -%}
        {{- '\\n' if instructions or not loop.first else '' -}}
        {{- function['name'] + '(' + ((function['parameters'] or {})['properties'] or {}) | join(', ') + '): ' -}}
        {{- (function['description'] or '') | replace('\\n', ' ') -}}
    {%- endfor -%}
    {{- '<|end|>' -}}
{%- endif -%}
{%- for message in (messages[1:] if has_system else messages) -%}
    {%- if message['role'] == 'assistant' -%}
        {{- '<|assistant|>' -}}
        {%- if message['tool_calls'] -%}
            {%- if message['tool_calls'] | length > 1 or message['content'] -%}
                {{- raise_exception('an assistant message holds either text or one tool call') -}}
            {%- endif -%}
            {%- set call = message['tool_calls'][0]['function'] -%}
            {%- set arguments = call['arguments'] | tojson(separators=(',', ':')) -%}
            {%- generation -%}{{- '<|call|>' + call['name'] + ' ' + arguments + '<|end|>' -}}{%- endgeneration -%}
        {%- else -%}
            {%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
        {%- endif -%}
    {%- elif message['role'] in ['system', 'user', 'tool'] -%}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
    {%- else -%}
        {{- raise_exception('unknown role ' + message['role']) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


class ConversationError(ForgeError):
    """Messages or tools that the chat format cannot express."""


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class AssistantReply:
    """What a model produced in one turn: text, or a tool call, or why it is neither. Exactly one is not None."""

    content: str | None = None
    call: ToolCall | None = None
    malformed: str | None = None


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in ``folder``, set to read special tokens in a text as the ordinary text they are."""
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise StorageError("there is no tokenizer", where=str(path), fix="run the tokenizer stage again")
    tokenizer = Tokenizer.from_file(str(path))
    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise StorageError(
            f"the tokenizer lacks {', '.join(missing)}", where=str(path), fix="use a tokenizer made by this pipeline"
        )
    tokenizer.encode_special_tokens = True
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Special token -> id."""
    return {token: _special_id(tokenizer, token) for token in SPECIAL_TOKENS}


def stop_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids at which generation of a turn ends."""
    return [_special_id(tokenizer, END_OF_MESSAGE), _special_id(tokenizer, END_OF_DOCUMENT)]


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of ``text``, in which special tokens are ordinary text.

    Raises ValueError for a tokenizer that did not come from `load_tokenizer`.
    """
    if not tokenizer.encode_special_tokens:
        raise ValueError("this tokenizer would read special tokens out of the text: take it from load_tokenizer")
    return tokenizer.encode(text, add_special_tokens=False).ids


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[ToolDefinition] | None = None
) -> tuple[list[int], list[bool]]:
    """Ids of a whole conversation, and which of them the assistant is to produce.

    Messages and tools are in OpenAI's form, with ``arguments`` as a dict. Raises ConversationError.
    """
    ids: list[int] = []
    produced: list[bool] = []
    for piece, is_special, by_assistant in _pieces(messages, tools or ()):
        part = [_special_id(tokenizer, piece)] if is_special else encode_text(tokenizer, piece)
        ids += part
        produced += [by_assistant] * len(part)
    return ids, produced


def encode_prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[ToolDefinition] | None = None
) -> list[int]:
    """Ids of a conversation up to where the assistant's next turn begins."""
    ids, _ = encode_chat(tokenizer, messages, tools)
    return [*ids, _special_id(tokenizer, ASSISTANT)]


def parse_assistant(tokenizer: Tokenizer, ids: Sequence[int]) -> AssistantReply:
    """Read what a model produced after ``<|assistant|>``, up to and with its ``<|end|>``; later ids are ignored."""
    end, call = _special_id(tokenizer, END_OF_MESSAGE), _special_id(tokenizer, CALL)
    body = list(ids)
    if end not in body:
        return AssistantReply(malformed=f"the message is not closed by {END_OF_MESSAGE}")
    body = body[: body.index(end)]
    is_call = bool(body) and body[0] == call
    if is_call:
        body = body[1:]
    special = {identifier: token for token, identifier in special_ids(tokenizer).items()}
    for identifier in body:
        if identifier in special:
            return AssistantReply(malformed=f"{special[identifier]} inside the message")
    text = tokenizer.decode(body, skip_special_tokens=False)
    return _parse_call(text) if is_call else AssistantReply(content=text)


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """What follows ``<|call|>``: the tool's name and its arguments as compact JSON, in their own order."""
    if not name or re.search(r"\s", name):
        raise ConversationError(f"{name!r} is not a tool's name", fix="use a name without white space")
    try:
        body = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConversationError(f"the arguments of {name} are not JSON: {error}") from error
    return f"{name} {body}"


def _special_id(tokenizer: Tokenizer, token: str) -> int:
    identifier = tokenizer.token_to_id(token)
    if identifier is None:
        raise ValueError(f"this tokenizer has no {token}: take it from load_tokenizer")
    return identifier


def _parse_call(text: str) -> AssistantReply:
    match = _CALL_FORM.fullmatch(text)
    if match is None:
        return AssistantReply(malformed="a call is a tool's name, a space and a JSON object")
    try:
        arguments = json.loads(match[2], object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return AssistantReply(malformed=f"the arguments are not JSON: {error}")
    return AssistantReply(call=ToolCall(match[1], arguments))


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an argument is given twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _pieces(messages: Sequence[Message], tools: Sequence[ToolDefinition]) -> Iterator[tuple[str, bool, bool]]:
    """(text or special token, whether it is a special token, whether the assistant produces it), in order."""
    has_system = bool(messages) and messages[0].get("role") == "system"
    if has_system or tools:
        lines = [_text(messages[0], 0)] if has_system else []
        lines = [line for line in lines if line] + [_tool_line(tool) for tool in tools]
        yield from ((SYSTEM, True, False), ("\n".join(lines), False, False), (END_OF_MESSAGE, True, False))
    for position, message in enumerate(messages):
        if position == 0 and has_system:
            continue
        role = message.get("role")
        if role not in _MARKERS:
            raise ConversationError(
                f"unknown role {role!r}", where=f"message {position}", fix=f"use one of {', '.join(_MARKERS)}"
            )
        by_assistant = role == "assistant"
        yield _MARKERS[role], True, False
        if by_assistant and message.get("tool_calls"):
            yield CALL, True, True
            yield _only_call(message, position), False, True
        else:
            yield _text(message, position), False, by_assistant
        yield END_OF_MESSAGE, True, by_assistant


def _text(message: Message, position: int) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise ConversationError(
            f"the content is {type(content).__name__}, not text", where=f"message {position}", fix="give a string"
        )
    return content


def _only_call(message: Message, position: int) -> str:
    calls = message["tool_calls"]
    if len(calls) > 1 or message.get("content"):
        raise ConversationError(
            "an assistant message holds either text or one tool call",
            where=f"message {position}",
            fix="split it into several messages",
        )
    function = calls[0]["function"]
    if not isinstance(function["arguments"], Mapping):
        raise ConversationError(
            f"the arguments are {type(function['arguments']).__name__}, not an object",
            where=f"message {position}",
            fix="give a dict",
        )
    return call_text(function["name"], function["arguments"])


def _tool_line(tool: ToolDefinition) -> str:
    function = tool["function"]
    arguments = ", ".join((function.get("parameters") or {}).get("properties") or {})
    description = (function.get("description") or "").replace("\n", " ")
    return f"{function['name']}({arguments}): {description}"
