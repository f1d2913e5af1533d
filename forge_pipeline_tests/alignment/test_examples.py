from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from forge_pipeline.alignment.catalog import words_of
from forge_pipeline.alignment.examples import EXAMPLES, QUESTIONS, VALIDATION_EXAMPLES, build_examples
from forge_pipeline.alignment.settings import EXAMPLE_KINDS, ExampleSettings
from forge_pipeline.corpus.signatures import parse_parameters
from forge_pipeline.corpus.tables import CATALOG, read_table
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Outcome, SilentProgress

SETTINGS = ExampleSettings(maximum_per_kind=150, held_out_questions=90)


def build(folder: Path, output: Path, settings: ExampleSettings = SETTINGS) -> Outcome:
    output.mkdir()
    return build_examples(settings, [folder], None, output, SilentProgress())


def rows(output: Path, name: str) -> list[dict[str, Any]]:
    return read_table(output, name).to_pylist()


def passed(outcome: Outcome) -> dict[str, bool]:
    return {check.name: check.passed for check in outcome.checks}


def test_a_documented_library_gives_more_than_a_thousand_examples(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=40)
    outcome = build(folder, tmp_path / "out")
    examples = rows(tmp_path / "out", EXAMPLES)
    assert outcome.counts["examples"] == len(examples) >= 1000
    assert all(passed(outcome).values())
    assert len({row["example_id"] for row in examples}) == len({row["messages"] for row in examples}) == len(examples)
    documents = {row["doc_id"] for row in rows(folder, CATALOG) if row["split"] == "train"}
    assert all(row["doc_ids"] and set(row["doc_ids"]) <= documents for row in examples)


def test_no_held_out_entry_reaches_training(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=40, prose=24)
    build(folder, tmp_path / "out")
    catalog = {row["entry_id"]: row for row in rows(folder, CATALOG)}
    for name, split in ((EXAMPLES, "train"), (VALIDATION_EXAMPLES, "validation"), (QUESTIONS, "test")):
        found = rows(tmp_path / "out", name)
        assert found
        assert {catalog[row["entry_id"]]["split"] for row in found} == {split}
    # The names are unique, so that any held-out one in a training text would be a leak.
    trained = "\n".join(row["messages"] for row in rows(tmp_path / "out", EXAMPLES))
    tokens = set(re.findall(r"\w+", trained))
    assert not {row["name"] for row in catalog.values() if row["split"] != "train"} & tokens


def test_training_entries_that_repeat_a_held_out_one_are_refused(write_corpus: Any, tmp_path: Path) -> None:
    held = next(row for row in rows(write_corpus(modules=8, name="probe"), CATALOG) if row["split"] == "test")
    copied = {**held, "entry_id": "same name and container", "split": "train", "summary": "Another sentence."}
    quoting = {
        **held,
        "entry_id": "same words",
        "split": "train",
        "name": "quoted",
        "container": "elsewhere",
        "summary": "Note: " + held["summary"],
    }
    silent = {**held, "entry_id": "undocumented", "name": "undocumented_name", "summary": ""}
    named_alike = {**silent, "entry_id": "documented elsewhere", "split": "train", "summary": "A third sentence."}
    assert len(words_of(held["summary"])) >= 13
    extra = [copied, quoting, silent, named_alike]
    outcome = build(write_corpus(modules=40, extra=extra), tmp_path / "out")
    examples = rows(tmp_path / "out", EXAMPLES)
    assert not [row for row in examples if "undocumented_name" in row["messages"]]
    assert not [row for row in examples if "Another sentence." in row["messages"]]
    assert not [row for row in examples if held["summary"] in row["messages"]]
    assert passed(outcome)["nothing_held_out_trains"]


def test_the_same_corpus_gives_the_same_bytes(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=16, prose=8)
    for output in ("first", "second"):
        build(folder, tmp_path / output)
    for name in (EXAMPLES, VALIDATION_EXAMPLES, QUESTIONS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_prose_alone_gives_examples_of_every_section_kind(write_corpus: Any, tmp_path: Path) -> None:
    outcome = build(write_corpus(modules=0, prose=80), tmp_path / "out", ExampleSettings(maximum_per_kind=400))
    examples = rows(tmp_path / "out", EXAMPLES)
    assert {row["kind"] for row in examples} == {kind for kind in EXAMPLE_KINDS if kind.startswith("section_")}
    assert len(examples) >= 1000
    assert passed(outcome)["enough_examples"]
    for row in examples:
        if row["kind"] == "section_start":
            question, answer = json.loads(row["messages"])
            assert question["content"].startswith(answer["content"])


def test_a_tiny_corpus_fails_a_check_and_no_more(write_corpus: Any, tmp_path: Path) -> None:
    outcome = build(write_corpus(modules=2), tmp_path / "out")
    assert passed(outcome) == {"enough_examples": False, "nothing_held_out_trains": True}
    empty = build(write_corpus(modules=0, name="empty"), tmp_path / "empty out")
    assert empty.counts["examples"] == 0
    assert rows(tmp_path / "empty out", EXAMPLES) == []


def test_no_batch_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no batch"):
        build_examples(SETTINGS, [], None, tmp_path, SilentProgress())


def test_reading_answers_follow_from_the_signature_in_the_question(write_corpus: Any, tmp_path: Path) -> None:
    build(write_corpus(modules=24), tmp_path / "out")
    checked = set()
    for row in rows(tmp_path / "out", EXAMPLES):
        question, answer = (message["content"] for message in json.loads(row["messages"]))
        if row["kind"] not in ("first_parameter", "last_parameter", "default_value", "parameter_count"):
            continue
        parameters = parse_parameters(next(p for p in question.split("`") if p.endswith(")")))
        assert parameters
        expected = {
            "first_parameter": parameters[0].name,
            "last_parameter": parameters[-1].name,
            "parameter_count": str(len(parameters)),
        }
        if row["kind"] == "default_value":
            name = next(p for p in question.split("`") if re.fullmatch(r"\w+", p))
            assert {p.name: p.default for p in parameters}[name] == answer != "None"
        else:
            assert answer == expected[row["kind"]]
        checked.add(row["kind"])
    assert len(checked) == 4


def test_choice_questions_have_four_held_out_options_and_one_is_right(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=40, prose=24)
    build(folder, tmp_path / "out", ExampleSettings(held_out_questions=200))
    held = {text for row in rows(folder, CATALOG) if row["split"] == "test" for text in (row["name"], row["summary"])}
    questions = rows(tmp_path / "out", QUESTIONS)
    choices = [row for row in questions if row["mode"] == "choice"]
    assert {row["kind"] for row in choices} >= {"summary", "signature", "name", "section_summary", "section_heading"}
    for row in choices:
        assert len({option.casefold() for option in row["options"]}) == 4
        assert row["options"][row["answer_index"]] == row["answer"]
        if row["kind"] != "signature":
            assert set(row["options"]) <= held
    positions = [row["answer_index"] for row in choices]
    assert {positions.count(place) > len(choices) / 10 for place in range(4)} == {True}
    assert all(row["options"] == [] and row["answer_index"] == -1 for row in questions if row["mode"] == "reading")
