from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.alignment.catalog import (
    Entry,
    HeldOut,
    call_of,
    first_sentence,
    read_entries,
    section_body,
    shorten,
    words_of,
)
from forge_pipeline.corpus.signatures import parse_parameters

NAMES = st.lists(st.sampled_from([f"name_{number}" for number in range(12)]), max_size=6, unique=True)
DEFAULTS = st.sampled_from(["None", "0", "-1", "'a, b'", "(1, 2)", "{}", "lambda x: x"])


@st.composite
def signatures(draw: st.DrawFn) -> str:
    """Any legal mixture of plain, starred and keyword-only parameters."""
    names = draw(NAMES)
    keywords_from = draw(st.integers(0, len(names)))
    written, defaults_begun = [], False
    for place, name in enumerate(names):
        if place == keywords_from:
            written.append(draw(st.sampled_from(["*", "*rest"])))
            defaults_begun = False
        defaults_begun = (defaults_begun and place < keywords_from) or draw(st.booleans())
        written.append(f"{name}={draw(DEFAULTS)}" if defaults_begun else name)
    if draw(st.booleans()):
        written.append("**options")
    return f"call({', '.join(written)})"


@given(signatures())
def test_parameters_are_what_python_itself_finds(signature: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def {signature}: pass", namespace)
    expected = inspect.signature(namespace["call"]).parameters.values()
    found = parse_parameters(signature)
    assert found is not None
    assert [parameter.name for parameter in found] == [parameter.name for parameter in expected]
    assert [parameter.default is None for parameter in found] == [
        p.default is inspect.Parameter.empty for p in expected
    ]
    assert [parameter.keyword_only for parameter in found] == [p.kind is p.KEYWORD_ONLY for p in expected]


@given(signatures())
def test_a_call_written_from_its_parameters_reads_the_same(signature: str) -> None:
    found = parse_parameters(signature)
    assert found is not None
    assert parse_parameters(call_of("other", found)) == found


@pytest.mark.parametrize("signature", ["", "Name", "f(a, a b)", "f(<unknown>)", "f(a"])
def test_what_is_no_python_signature_has_no_parameters(signature: str) -> None:
    assert parse_parameters(signature) is None


def test_the_receiver_is_no_parameter() -> None:
    found = parse_parameters("method(self, value: int = 3) -> str")
    assert found is not None
    assert [(parameter.name, parameter.default) for parameter in found] == [("value", "3")]


def test_a_section_loses_its_heading_and_underline() -> None:
    assert section_body("## A *title*\n\nText  goes\non.", "A *title*") == "Text goes on."
    assert section_body("Title\n=====\n\nText.", "Title") == "Text."


def test_the_first_sentence_ends_where_the_script_says() -> None:
    assert first_sentence("One thing. Another.") == "One thing."
    assert first_sentence("これは文です。次の文。") == "これは文です。"
    assert first_sentence("no stop at all") == "no stop at all"


@given(st.text(), st.integers(1, 40))
def test_shortened_text_is_a_beginning(text: str, length: int) -> None:
    assert text.startswith(shorten(text, length))
    assert len(shorten(text, length)) <= length


def test_scripts_without_spaces_are_counted_by_character() -> None:
    assert words_of("一二三 abc") == ["一", "二", "三", "abc"]


def entry(name: str, split: str, summary: str, container: str = "module") -> Entry:
    return Entry(f"id {name} {container}", name, "function", container, "", summary, "document", split, ())


def test_an_entry_is_held_out_by_name_and_container_and_by_name_and_summary() -> None:
    held = HeldOut([entry("held", "test", "Hold it."), entry("kept", "train", "Keep it.")], 13)
    assert held.holds(entry("held", "train", "Something else."))
    assert held.holds(entry("Held", "train", "hold it.", "elsewhere"))
    assert not held.holds(entry("held", "train", "Something else.", "elsewhere"))
    assert not held.holds(entry("kept", "train", "Keep it."))


def test_thirteen_shared_words_overlap_and_twelve_do_not() -> None:
    words = [f"word{number}" for number in range(20)]
    held = HeldOut([entry("held", "validation", " ".join(words))], 13)
    assert held.overlaps(["So it says: " + ", ".join(words[3:16]).upper()])
    assert not held.overlaps([" ".join(words[3:15]) + " and " + " ".join(words[15:])])


def test_what_is_described_twice_is_kept_once_and_held_out_if_either_is(write_corpus: Any) -> None:
    first = write_corpus(modules=3, name="first")
    single = read_entries([first], 200)
    trained = next(item for item in single if item.split == "train")
    row = dict.fromkeys(("signature", "returns", "source"), "") | {
        "entry_id": "z",
        "name": trained.name,
        "container": trained.container,
        "kind": "function",
        "summary": "The same in other words.",
        "doc_id": "other",
        "split": "test",
        "start": 0,
        "end": 0,
    }
    second = write_corpus(modules=3, name="second", extra=[row])
    both = read_entries([first, second], 200)
    assert [(item.container, item.name) for item in both] == [(item.container, item.name) for item in single]
    assert {item.entry_id for item in both} ^ {item.entry_id for item in single} == {"z", trained.entry_id}
