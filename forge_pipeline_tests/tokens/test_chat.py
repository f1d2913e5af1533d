"""Conversations: the direct implementation is the template, and nobody can type themselves into a role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_pipeline.tokens.chat import (
    AssistantReply,
    ConversationError,
    ToolCall,
    call_text,
    encode_chat,
    encode_prompt,
    encode_text,
    load_tokenizer,
    parse_assistant,
    special_ids,
    stop_ids,
)

# No special token can stand in these: the template alone would take it for one.
TEXT = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=40)
NAME = st.from_regex(r"[a-z_]{1,10}", fullmatch=True)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**6), 10**6), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
CALLS = st.builds(
    lambda name, arguments: {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    },
    NAME,
    st.dictionaries(TEXT, JSON, max_size=3),
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(
            lambda role, content: {"role": role, "content": content},
            st.sampled_from(["system", "user", "assistant", "tool"]),
            TEXT,
        ),
        CALLS,
    ),
    min_size=1,
    max_size=6,
)
TOOLS = st.lists(
    st.builds(
        lambda name, names, description: {
            "type": "function",
            "function": {
                "name": name,
                "description": description,
                "parameters": {"type": "object", "properties": {key: {"type": "string"} for key in names}},
            },
        },
        NAME,
        st.lists(NAME, max_size=3, unique=True),
        TEXT,
    ),
    max_size=3,
)


@pytest.fixture(scope="module")
def theirs(tokenizer_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


@given(messages=MESSAGES, tools=TOOLS)
@settings(deadline=None, max_examples=200)
def test_ids_and_mask_are_those_of_apply_chat_template(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], theirs: Any, tokenizer_folder: Path
) -> None:
    ours = load_tokenizer(tokenizer_folder)
    rendered = theirs.apply_chat_template(
        messages, tools=tools or None, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = encode_chat(ours, messages, tools)
    assert ids == rendered["input_ids"]
    assert mask == [bool(value) for value in rendered["assistant_masks"]]
    prompt = theirs.apply_chat_template(messages, tools=tools or None, add_generation_prompt=True)["input_ids"]
    assert encode_prompt(ours, messages, tools) == prompt


def test_the_format_is_the_one_described(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    tools = [
        {
            "type": "function",
            "function": {
                "name": "find",
                "description": "Finds\nthings",
                "parameters": {"properties": {"name": {}, "kind": {}}},
            },
        }
    ]
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Where?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"name": "größe", "n": 2}}}],
        },
        {"role": "tool", "content": "here"},
        {"role": "assistant", "content": "Here."},
    ]
    ids, mask = encode_chat(tokenizer, messages, tools)
    assert tokenizer.decode(ids, skip_special_tokens=False) == (
        "<|system|>Be short.\nfind(name, kind): Finds things<|end|><|user|>Where?<|end|>"
        '<|assistant|><|call|>find {"name":"größe","n":2}<|end|><|tool|>here<|end|><|assistant|>Here.<|end|>'
    )
    produced = [token for token, wanted in zip(ids, mask, strict=True) if wanted]
    assert tokenizer.decode(produced, skip_special_tokens=False) == (
        '<|call|>find {"name":"größe","n":2}<|end|>Here.<|end|>'
    )


@given(content=st.lists(st.sampled_from(["<|end|>", "<|system|>", "<|call|>", "obey ", "\n"]), max_size=6).map("".join))
def test_special_tokens_in_a_message_stay_text(content: str, tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    special = special_ids(tokenizer)
    for role, marker in (("user", "<|user|>"), ("tool", "<|tool|>"), ("system", "<|system|>")):
        ids, _ = encode_chat(tokenizer, [{"role": role, "content": content}])
        assert ids == [special[marker], *encode_text(tokenizer, content), special["<|end|>"]]
        assert len(set(ids[1:-1]) & set(special.values())) == 0


@given(content=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_what_was_encoded_is_parsed_back(content: str, tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    ids, mask = encode_chat(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}])
    reply = [token for token, wanted in zip(ids, mask, strict=True) if wanted]
    assert parse_assistant(tokenizer, reply) == AssistantReply(content=content)
    assert parse_assistant(tokenizer, [*reply, 50, 51]) == AssistantReply(content=content)


@given(message=CALLS)
def test_a_call_is_parsed_back(message: dict[str, Any], tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    ids, mask = encode_chat(tokenizer, [message])
    function = message["tool_calls"][0]["function"]
    reply = parse_assistant(tokenizer, [token for token, wanted in zip(ids, mask, strict=True) if wanted])
    assert reply == AssistantReply(call=ToolCall(function["name"], function["arguments"]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("find", "name, a space"),
        ("find {", "name, a space"),
        ('find {"a":1', "name, a space"),
        ('{"a":1}', "name, a space"),
        ("find [1]", "name, a space"),
        ('find {"a":}', "not JSON"),
        ('find {"a":NaN}', "NaN"),
        ('find {"a":1,"a":2}', "twice"),
        ("find " + '{"a":' * 100_000 + "{}" + "}" * 100_000, "not JSON"),
    ],
)
def test_a_malformed_call_says_why(text: str, reason: str, tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    special = special_ids(tokenizer)
    reply = parse_assistant(tokenizer, [special["<|call|>"], *encode_text(tokenizer, text), special["<|end|>"]])
    assert (reply.call, reply.content) == (None, None)
    assert reason in str(reply.malformed)


def test_an_unclosed_message_and_a_role_inside_it_are_malformed(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    special, text = special_ids(tokenizer), encode_text(tokenizer, "so")
    assert "not closed" in str(parse_assistant(tokenizer, text).malformed)
    inside = parse_assistant(tokenizer, [*text, special["<|user|>"], special["<|end|>"]])
    assert "<|user|> inside" in str(inside.malformed)
    late_call = parse_assistant(tokenizer, [*text, special["<|call|>"], special["<|end|>"]])
    assert "<|call|> inside" in str(late_call.malformed)
    assert stop_ids(tokenizer) == [special["<|end|>"], special["<|endoftext|>"]]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "critic", "content": "x"},
        {"role": "user", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}] * 2},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f g", "arguments": {}}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": float("nan")}}}]},
    ],
)
def test_what_the_format_cannot_say_is_an_error(message: dict[str, Any], tokenizer_folder: Path) -> None:
    with pytest.raises(ConversationError):
        encode_chat(load_tokenizer(tokenizer_folder), [message])


def test_the_template_refuses_what_the_format_cannot_say(theirs: Any) -> None:
    both = {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    for message in (both, {"role": "critic", "content": "x"}):
        with pytest.raises(Exception, match=r"either text or one tool call|unknown role"):
            theirs.apply_chat_template([message], tokenize=False)


def test_a_tokenizer_that_reads_special_tokens_is_refused(tokenizer_folder: Path) -> None:
    from tokenizers import Tokenizer

    unsafe = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="load_tokenizer"):
        encode_chat(unsafe, [{"role": "user", "content": "<|end|>"}])


def test_argument_order_is_kept() -> None:
    assert call_text("f", {"b": 1, "a": [1.5, None]}) == 'f {"b":1,"a":[1.5,null]}'
