"""Conversations as examples hold them: when one is well formed, and what is said in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

Problem = Literal["malformed", "too_long"]
ROLES_BEFORE = {
    "system": ("",),
    "user": ("", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def problem_with(messages: Sequence[dict[str, Any]], maximum_characters: int) -> Problem | None:
    """Why a conversation is no example, or None if it is one.

    A conversation is well formed if its roles follow each other as the chat template expects, it ends with the
    assistant, and no message is empty but for an assistant's that calls a tool.
    """
    previous = ""
    for message in messages:
        role = message.get("role")
        if role not in ROLES_BEFORE or previous not in ROLES_BEFORE[role]:
            return "malformed"
        if not str(message.get("content") or "").strip() and not (role == "assistant" and message.get("tool_calls")):
            return "malformed"
        previous = role
    if previous != "assistant":
        return "malformed"
    return "too_long" if characters_of(messages) > maximum_characters else None


def texts_of(messages: Iterable[dict[str, Any]]) -> list[str]:
    """Everything that is said in a conversation, the arguments of tool calls included."""
    texts = []
    for message in messages:
        texts.append(str(message.get("content") or ""))
        for call in message.get("tool_calls") or ():
            texts.append(json.dumps(call["function"]["arguments"], ensure_ascii=False))
    return texts


def characters_of(messages: Iterable[dict[str, Any]]) -> int:
    return sum(map(len, texts_of(messages)))


def compact_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
