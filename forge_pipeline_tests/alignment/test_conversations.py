from __future__ import annotations

from typing import Any

import pytest

from forge_pipeline.alignment.conversations import problem_with

USER = {"role": "user", "content": "question"}
ANSWER = {"role": "assistant", "content": "answer"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"a": 1}}}]}
RESULT = {"role": "tool", "content": "found"}


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([USER, ANSWER], None),
        ([{"role": "system", "content": "be brief"}, USER, CALL, RESULT, CALL, RESULT, ANSWER, USER, ANSWER], None),
        ([], "malformed"),
        ([USER], "malformed"),
        ([ANSWER, USER], "malformed"),
        ([USER, ANSWER, ANSWER], "malformed"),
        ([USER, RESULT, ANSWER], "malformed"),
        ([USER, {"role": "narrator", "content": "x"}, ANSWER], "malformed"),
        ([USER, {"role": "assistant", "content": " "}], "malformed"),
        ([{"role": "user", "content": ""}, ANSWER], "malformed"),
        ([{"role": "user", "content": "x" * 300}, ANSWER], "too_long"),
    ],
)
def test_conversations_are_judged_by_roles_emptiness_and_length(
    messages: list[dict[str, Any]], problem: str | None
) -> None:
    assert problem_with(messages, 300) == problem
