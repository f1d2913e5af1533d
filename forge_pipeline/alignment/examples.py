"""Supervised examples from the corpus's own catalog, and the held-out questions that measure what they teach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from forge_pipeline.alignment.catalog import TEST, VALIDATION, Entry, usable
from forge_pipeline.alignment.conversations import characters_of, compact_json, problem_with, texts_of
from forge_pipeline.alignment.questions import CHOICE_KINDS, Question, QuestionMaker, digest
from forge_pipeline.alignment.reports import counts_by_kind, documents_of, enough, histogram, nothing_held_out, samples
from forge_pipeline.alignment.selection import Material, Refusals, Selection
from forge_pipeline.alignment.settings import ExampleSettings
from forge_pipeline.corpus.tables import write_table
from forge_pipeline.reporting import Outcome, Progress

CODE_VERSION = "1"

EXAMPLES = "examples.parquet"
VALIDATION_EXAMPLES = "validation.parquet"
QUESTIONS = "questions.parquet"
EXAMPLE_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("kind", pa.string()),
        ("messages", pa.string()),
        ("tools", pa.string()),
        ("doc_ids", pa.list_(pa.string())),
        ("entry_id", pa.string()),
        ("characters", pa.int64()),
    ]
)
QUESTION_SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("kind", pa.string()),
        ("mode", pa.string()),
        ("messages", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer_index", pa.int32()),
        ("demonstration_prompt", pa.string()),
        ("demonstration_answer", pa.string()),
        ("entry_id", pa.string()),
        ("doc_id", pa.string()),
    ]
)


def build_examples(
    settings: ExampleSettings, training: Sequence[Path], agent_tasks: Path | None, output: Path, progress: Progress
) -> Outcome:
    """Write `examples.parquet` and `validation.parquet` (chat examples) and `questions.parquet` (held out).

    ``training`` are the corpus's batches in order; ``agent_tasks`` the folder of a model's tasks, None for a
    model without tools. Examples are made from entries of the train split, validation examples from those of
    the validation split, questions from those of the test split. Whatever shares a name and container, or
    ``overlap_words`` consecutive words, with a held-out entry does not become an example. Rows are ordered by
    id, which is a digest of the example. Too few examples fail a check; SourceError only where there is no batch.
    """
    material = Material.read(training, settings.excerpt_characters, settings.overlap_words, progress)
    refusals = Refusals()
    with progress.task("Writing examples"):
        maker = QuestionMaker(material.trainable(refusals), settings.seed)
        selection = Selection(material.held_out, refusals)
        accepted = _accept(settings, maker, selection, settings.maximum_per_kind)
        examples = [_example(question) for question in accepted]
        examples += _demonstrations(settings, agent_tasks, Selection(material.held_out, refusals))
    with progress.task("Writing held-out questions"):
        validation = _validation(settings, material.entries)
        questions = _held_out_questions(settings, material.entries, accepted)
    examples.sort(key=lambda row: row["example_id"])
    write_table(output / EXAMPLES, EXAMPLE_SCHEMA, examples)
    write_table(output / VALIDATION_EXAMPLES, EXAMPLE_SCHEMA, validation)
    write_table(output / QUESTIONS, QUESTION_SCHEMA, questions)
    return _outcome(settings, material, examples, validation, questions, refusals)


def _conversation(question: Question) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question.prompt}, {"role": "assistant", "content": question.answer}]


def _accept(settings: ExampleSettings, maker: QuestionMaker, selection: Selection, per_kind: int) -> list[Question]:
    """At most ``per_kind`` questions of each kind that pass every test, in the order they were drawn."""
    accepted: list[Question] = []
    for kind in settings.kinds:
        questions = (maker.make(kind, entry) for entry in maker.order(kind))
        passing = (asked for asked in questions if asked and _passes(_conversation(asked), settings, selection))
        accepted += islice(passing, per_kind)
    return accepted


def _passes(messages: list[dict[str, Any]], settings: ExampleSettings, selection: Selection) -> bool:
    problem = problem_with(messages, settings.maximum_characters)
    return selection.passes(digest(compact_json(messages)), texts_of(messages), problem)


def _example(question: Question) -> dict[str, Any]:
    sources = dict.fromkeys(entry.doc_id for entry in question.sources)
    return _example_row(question.kind, _conversation(question), [], list(sources), question.entry.entry_id)


def _example_row(
    kind: str, messages: list[dict[str, Any]], tools: list[Any], doc_ids: list[str], entry_id: str | None
) -> dict[str, Any]:
    text, tools_text = compact_json(messages), compact_json(tools)
    return {
        "example_id": digest(kind, text, tools_text)[:32],
        "kind": kind,
        "messages": text,
        "tools": tools_text,
        "doc_ids": doc_ids,
        "entry_id": entry_id,
        "characters": characters_of(messages),
    }


def _validation(settings: ExampleSettings, entries: list[Entry]) -> list[dict[str, Any]]:
    maker = QuestionMaker(usable(entries, VALIDATION), settings.seed)
    wanted = settings.validation_examples
    rows = [_example(question) for question in _accept(settings, maker, Selection(), wanted)]
    return sorted(rows, key=lambda row: row["example_id"])[:wanted]


def _held_out_questions(
    settings: ExampleSettings, entries: list[Entry], examples: list[Question]
) -> list[dict[str, Any]]:
    """Questions about test entries, as many of each kind as there are of the others where the entries suffice.

    Each carries one answered question of its kind from the examples, for models that must be shown the form.
    """
    maker = QuestionMaker(usable(entries, TEST), settings.seed)
    drawn = _accept(settings, maker, Selection(), settings.held_out_questions)
    by_kind: dict[str, list[Question]] = {}
    for question in drawn:
        by_kind.setdefault(question.kind, []).append(question)
    chosen: list[Question] = []
    for rank in range(settings.held_out_questions):
        for questions in by_kind.values():
            if rank < len(questions) and len(chosen) < settings.held_out_questions:
                question = maker.options_for(questions[rank])
                # Without wrong answers to choose from, a question about knowledge cannot be scored fairly.
                if question.options or question.kind not in CHOICE_KINDS:
                    chosen.append(question)
    shown: dict[str, list[Question]] = {}
    for example in examples:
        shown.setdefault(example.kind, []).append(example)
    return sorted((_question_row(q, shown.get(q.kind, [])) for q in chosen), key=lambda row: row["question_id"])


def _question_row(question: Question, shown: list[Question]) -> dict[str, Any]:
    # Never one with the same answer, which could be copied.
    others = [other for other in shown if other.answer != question.answer]
    demonstration = min(others, key=lambda other: (len(other.prompt), other.prompt), default=None)
    messages = _conversation(question)[:1]
    return {
        "question_id": digest(question.kind, question.prompt, question.answer)[:32],
        "kind": question.kind,
        "mode": "choice" if question.options else "reading",
        "messages": compact_json(messages),
        "prompt": question.prompt,
        "answer": question.answer,
        "options": list(question.options),
        "answer_index": question.answer_index,
        "demonstration_prompt": demonstration.prompt if demonstration else "",
        "demonstration_answer": demonstration.answer if demonstration else "",
        "entry_id": question.entry.entry_id,
        "doc_id": question.entry.doc_id,
    }


def _demonstrations(settings: ExampleSettings, agent_tasks: Path | None, selection: Selection) -> list[dict[str, Any]]:
    if agent_tasks is None or settings.demonstrations == 0:
        return []
    # Only a model with tools needs the agents' room.
    from forge_pipeline.agents.tasks import demonstrations

    rows: list[dict[str, Any]] = []
    for item in demonstrations(agent_tasks, settings.demonstrations, settings.seed):
        messages = item["messages"]
        if len(rows) < settings.demonstrations and _passes(messages, settings, selection):
            rows.append(_example_row("demonstration", messages, item["tools"], list(item["doc_ids"]), None))
    return rows


def _outcome(
    settings: ExampleSettings,
    material: Material,
    examples: list[dict[str, Any]],
    validation: list[dict[str, Any]],
    questions: list[dict[str, Any]],
    refusals: Refusals,
) -> Outcome:
    return Outcome(
        counts={
            "entries": len(material.entries),
            "examples": len(examples),
            "validation_examples": len(validation),
            "held_out_questions": len(questions),
            "documents": documents_of(examples),
            "refused": refusals.total,
        },
        checks=[
            enough("examples", len(examples), settings.minimum_examples),
            nothing_held_out("example", material.leaks(examples, lambda row: texts_of(json.loads(row["messages"])))),
        ],
        tables=[
            counts_by_kind("Examples by kind", {"examples": examples, "held-out questions": questions}),
            refusals.table(),
            samples("Examples", examples),
        ],
        plots=[histogram("Length of the examples", "characters", [row["characters"] for row in examples])],
    )
