"""Supervised examples from the corpus's own catalog, and the held-out questions that measure what they teach."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from forge_pipeline.alignment.catalog import TEST, TRAIN, VALIDATION, Entry, HeldOut, read_entries, usable
from forge_pipeline.alignment.questions import CHOICE_KINDS, Question, QuestionMaker, digest
from forge_pipeline.alignment.reports import histogram, samples
from forge_pipeline.alignment.settings import ExampleSettings
from forge_pipeline.corpus.tables import write_table
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Check, Outcome, Progress, Table

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
ROLES_BEFORE = {
    "system": ("",),
    "user": ("", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


@dataclass
class Refusals:
    """Why what could have been an example is none. One count for each reason."""

    held_out_entries: int = 0
    overlapping: int = 0
    duplicate: int = 0
    too_long: int = 0
    malformed: int = 0


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
    if not training:
        raise SourceError("no batch of training documents", fix="run the corpus's stages first")
    with progress.task("Reading the catalog"):
        entries = read_entries(training, settings.excerpt_characters)
        held_out = HeldOut(entries, settings.overlap_words)
    refusals = Refusals()
    with progress.task("Writing examples"):
        trainable = usable(entries, TRAIN)
        pool = [entry for entry in trainable if not held_out.holds(entry)]
        refusals.held_out_entries = len(trainable) - len(pool)
        maker = QuestionMaker(pool, settings.seed)
        accepted = _accept(settings, held_out, refusals, maker, settings.maximum_per_kind)
        examples = [_example(question) for question in accepted]
        examples += _demonstrations(settings, agent_tasks, held_out, refusals)
    with progress.task("Writing held-out questions"):
        validation = _validation(settings, entries)
        questions = _held_out_questions(settings, entries, accepted)
    examples.sort(key=lambda row: row["example_id"])
    write_table(output / EXAMPLES, EXAMPLE_SCHEMA, examples)
    write_table(output / VALIDATION_EXAMPLES, EXAMPLE_SCHEMA, validation)
    write_table(output / QUESTIONS, QUESTION_SCHEMA, questions)
    return _outcome(settings, entries, examples, validation, questions, refusals, held_out)


def problem_with(messages: Sequence[dict[str, Any]], maximum_characters: int) -> str | None:
    """Why a conversation is no example ("malformed" or "too_long"), or None if it is one.

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


def _conversation(question: Question) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question.prompt}, {"role": "assistant", "content": question.answer}]


def _accept(
    settings: ExampleSettings, held_out: HeldOut | None, refusals: Refusals, maker: QuestionMaker, per_kind: int
) -> list[Question]:
    """At most ``per_kind`` questions of each kind that pass every test, in the order they were drawn."""
    accepted: list[Question] = []
    seen: set[str] = set()
    for kind in settings.kinds:
        taken = 0
        for entry in maker.order(kind):
            if taken == per_kind:
                break
            question = maker.make(kind, entry)
            if question is None:
                continue
            messages = _conversation(question)
            if _passes(messages, settings, held_out, refusals, seen):
                accepted.append(question)
                taken += 1
    return accepted


def _passes(
    messages: list[dict[str, Any]],
    settings: ExampleSettings,
    held_out: HeldOut | None,
    refusals: Refusals,
    seen: set[str],
) -> bool:
    problem = problem_with(messages, settings.maximum_characters)
    key = digest(compact_json(messages))
    if problem == "malformed":
        refusals.malformed += 1
    elif problem == "too_long":
        refusals.too_long += 1
    elif key in seen:
        refusals.duplicate += 1
    elif held_out is not None and held_out.overlaps(texts_of(messages)):
        refusals.overlapping += 1
    else:
        seen.add(key)
        return True
    return False


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
    rows = [_example(question) for question in _accept(settings, None, Refusals(), maker, wanted)]
    return sorted(rows, key=lambda row: row["example_id"])[:wanted]


def _held_out_questions(
    settings: ExampleSettings, entries: list[Entry], examples: list[Question]
) -> list[dict[str, Any]]:
    """Questions about test entries, as many of each kind as there are of the others where the entries suffice.

    Each carries one answered question of its kind from the examples, for models that must be shown the form.
    """
    maker = QuestionMaker(usable(entries, TEST), settings.seed)
    drawn = _accept(settings, None, Refusals(), maker, settings.held_out_questions)
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


def _demonstrations(
    settings: ExampleSettings, agent_tasks: Path | None, held_out: HeldOut, refusals: Refusals
) -> list[dict[str, Any]]:
    if agent_tasks is None or settings.demonstrations == 0:
        return []
    # Only a model with tools needs the agents' room.
    from forge_pipeline.agents.tasks import demonstrations

    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for item in demonstrations(agent_tasks, settings.demonstrations, settings.seed):
        messages = item["messages"]
        if len(rows) < settings.demonstrations and _passes(messages, settings, held_out, refusals, seen):
            rows.append(_example_row("demonstration", messages, item["tools"], list(item["doc_ids"]), None))
    return rows


def _outcome(
    settings: ExampleSettings,
    entries: list[Entry],
    examples: list[dict[str, Any]],
    validation: list[dict[str, Any]],
    questions: list[dict[str, Any]],
    refusals: Refusals,
    held_out: HeldOut,
) -> Outcome:
    kinds = Counter(row["kind"] for row in examples)
    asked = Counter(row["kind"] for row in questions)
    train_ids = {entry.entry_id for entry in entries if entry.split == TRAIN}
    leaked = sum(_leaks(row, train_ids, held_out) for row in examples)
    documents = {doc_id for row in examples for doc_id in row["doc_ids"]}
    checks = [
        Check(
            "enough_examples",
            len(examples) >= settings.minimum_examples,
            f"{len(examples)} examples; at least {settings.minimum_examples} are wanted. "
            "More documents with documented functions or titled sections give more",
            len(examples),
            settings.minimum_examples,
        ),
        Check(
            "nothing_held_out_trains",
            leaked == 0,
            "no example is about a held-out entry or repeats a run of its words",
            leaked,
            0,
        ),
    ]
    by_kind = [
        {"kind": kind, "examples": kinds[kind], "held-out questions": asked[kind]} for kind in sorted(kinds | asked)
    ]
    refused = [{"reason": name.replace("_", " "), "refused": count} for name, count in vars(refusals).items()]
    return Outcome(
        counts={
            "entries": len(entries),
            "examples": len(examples),
            "validation_examples": len(validation),
            "held_out_questions": len(questions),
            "documents": len(documents),
            "refused": sum(vars(refusals).values()),
        },
        checks=checks,
        tables=[Table.of("Examples by kind", by_kind), Table.of("Refused", refused), samples("Examples", examples)],
        plots=[histogram("Length of the examples", "characters", [row["characters"] for row in examples])],
    )


def _leaks(row: dict[str, Any], train_ids: set[str], held_out: HeldOut) -> bool:
    if row["entry_id"] is not None and row["entry_id"] not in train_ids:
        return True
    return held_out.overlaps(texts_of(json.loads(row["messages"])))
