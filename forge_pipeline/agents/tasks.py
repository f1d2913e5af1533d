"""Tasks: questions about the library that take several tool calls, and the index in which the answers stand."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from forge_pipeline.agents.entities import Pool, is_speakable, read_entities
from forge_pipeline.agents.environment import LibraryEnvironment
from forge_pipeline.agents.episode import Episode, Task
from forge_pipeline.agents.index import INDEX_FILE, Entity, LibraryIndex, write_index
from forge_pipeline.agents.procedural import NameMaker, common_words, make_world
from forge_pipeline.agents.questions import Question, candidates, expert_calls, solve
from forge_pipeline.agents.settings import TASK_KINDS, TaskKind, TaskSettings
from forge_pipeline.agents.tools import tool_schemas
from forge_pipeline.corpus.tables import read_table, write_table
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Scalar, Table
from forge_pipeline.tokens.chat import AssistantReply

CODE_VERSION = "1"
TASKS_FILE = "tasks.parquet"
DEMONSTRATIONS_FILE = "demonstrations.parquet"
SPLITS = ("train", "validation", "test")
TASK_SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("split", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("names", pa.list_(pa.string())),
        pa.field("container", pa.string()),
        pa.field("doc_ids", pa.list_(pa.string())),
        pa.field("difficulty", pa.int32()),
        pa.field("procedural", pa.bool_()),
    ]
)
DEMONSTRATION_SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string()),
        pa.field("messages", pa.string()),
        pa.field("tools", pa.string()),
        pa.field("doc_ids", pa.list_(pa.string())),
    ]
)
# An expert never needs more; a task that would is not made.
EXPERT_TURNS = 8


class Demonstration(TypedDict):
    """An expert's conversation in OpenAI's form, with the documents that it is about."""

    task_id: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    doc_ids: list[str]


def build_tasks(settings: TaskSettings, training: Sequence[Path], output: Path, progress: Progress) -> Outcome:
    """Write `index.sqlite`, `tasks.parquet` and `demonstrations.parquet` (train split only).

    ``training`` are the corpus's batches in order. Names and containers of held-out tasks, and those that `find`
    and `list` show about them, occur in no training task. Raises SourceError if not one training or test task can
    be made.
    """
    with progress.task("reading the catalog"):
        real = read_entities(training)
    made_up = _made_up(settings, real)
    with progress.task("writing the index"):
        entries = write_index(output / INDEX_FILE, [*real, *made_up])
    with LibraryIndex(output / INDEX_FILE) as index, progress.task("making tasks"):
        maker = _TaskMaker(settings, index)
        tasks = [task for split in SPLITS for task in maker.tasks(split, real, made_up)]
        for split in ("train", "test"):
            if not any(task.split == split for task in tasks):
                raise SourceError(
                    f"no {split} task can be made from this corpus",
                    where=str(training[0]) if training else "no batch",
                    fix="add documents with named functions or titled sections, or raise procedural_fraction",
                )
        environment = LibraryEnvironment(index)
        demonstrated = [_demonstration_row(task, environment, index) for task in tasks if task.split == "train"]
    write_table(output / TASKS_FILE, TASK_SCHEMA, (_row(task) for task in tasks))
    write_table(output / DEMONSTRATIONS_FILE, DEMONSTRATION_SCHEMA, demonstrated)
    return _outcome(settings, tasks, entries, len(made_up))


def read_tasks(tasks: Path, split: str | None = None) -> list[Task]:
    """The tasks of a sealed folder, of one split or all, in order."""
    rows = read_table(tasks, TASKS_FILE).to_pylist()
    return [
        Task(**{**row, "names": tuple(row["names"]), "doc_ids": tuple(row["doc_ids"])})
        for row in rows
        if split in (None, row["split"])
    ]


def demonstrations(tasks: Path, maximum: int, seed: int) -> Iterator[Demonstration]:
    """Up to ``maximum`` of the experts' conversations about training tasks, drawn by ``seed``."""
    rows = read_table(tasks, DEMONSTRATIONS_FILE).to_pylist()
    for place in np.random.default_rng([seed, len(rows)]).permutation(len(rows))[:maximum].tolist():
        row = rows[place]
        yield Demonstration(
            task_id=row["task_id"],
            messages=json.loads(row["messages"]),
            tools=json.loads(row["tools"]),
            doc_ids=row["doc_ids"],
        )


def oracle_conversation(task: Task, environment: LibraryEnvironment, index: LibraryIndex) -> list[dict[str, Any]]:
    """The conversation of an expert: the calls that are needed, their real results, and the answer."""
    episode = Episode(task, environment, EXPERT_TURNS)
    for call in expert_calls(index, task.kind, task.names, task.container):
        episode.reply(AssistantReply(call=call))
    episode.reply(AssistantReply(content=task.answer))
    return episode.transcript.messages


def _made_up(settings: TaskSettings, real: list[Entity]) -> list[Entity]:
    if settings.procedural_fraction == 0:
        return []
    # Held-out names lend no words: what is made up for training must not hint at them.
    words = common_words(entity.name for entity in real if entity.split == "train")
    maker = NameMaker(words, np.random.default_rng([settings.seed, 1]))
    for entity in real:
        maker.taken.update((entity.name, entity.container))
    made_up: list[Entity] = []
    for split in SPLITS:
        wanted = math.ceil(getattr(settings, split) * settings.procedural_fraction / len(settings.kinds))
        made_up += make_world(maker, max(3, wanted) if wanted else 0, split)
    return made_up


class _TaskMaker:
    def __init__(self, settings: TaskSettings, index: LibraryIndex) -> None:
        self.settings, self.index = settings, index

    def tasks(self, split: str, real: list[Entity], made_up: list[Entity]) -> list[Task]:
        """The tasks of a split, kinds in turn, in an order that mixes them."""
        wanted = getattr(self.settings, split)
        procedural = round(wanted * self.settings.procedural_fraction)
        made = self._draw(Pool(real, split, False), wanted - procedural, False)
        made += self._draw(Pool(made_up, split, True), procedural, True)
        order = np.random.default_rng([self.settings.seed, 2, SPLITS.index(split)]).permutation(len(made))
        return [made[place] for place in order.tolist()]

    def _draw(self, pool: Pool, wanted: int, procedural: bool) -> list[Task]:
        """Up to ``wanted`` tasks, one of each kind in turn as long as there are any."""
        streams: dict[TaskKind, Iterator[Task]] = {}
        for kind in sorted(self.settings.kinds, key=TASK_KINDS.index):
            entropy = [self.settings.seed, 3, SPLITS.index(pool.split), TASK_KINDS.index(kind), int(procedural)]
            streams[kind] = self._stream(pool, kind, np.random.default_rng(entropy), wanted)
        made: list[Task] = []
        while streams and len(made) < wanted:
            for kind in list(streams):
                task = next(streams[kind], None)
                if task is None:
                    del streams[kind]
                elif len(made) < wanted:
                    made.append(task)
        return made

    def _stream(self, pool: Pool, kind: TaskKind, generator: np.random.Generator, wanted: int) -> Iterator[Task]:
        """Tasks of a kind; an answer that would be too frequent among them is passed over."""
        # A kind can count on its even share alone.
        most = max(1, int(self.settings.maximum_answer_share * wanted / len(self.settings.kinds)))
        answers: Counter[str] = Counter()
        for question in candidates(pool, kind, self.index, generator):
            task = self._task(question, pool.split)
            if task is not None and answers[task.answer] < most:
                answers[task.answer] += 1
                yield task

    def _task(self, question: Question, split: str) -> Task | None:
        answer = solve(self.index, question.kind, question.names, question.container)
        prompt = question.prompt()
        spoken = [*question.names, *([question.container] if question.container else [])]
        if not is_speakable(answer, self.settings.answer_characters) or answer.casefold() in prompt.casefold():
            return None
        if not all(is_speakable(name, self.settings.name_characters) for name in spoken):
            return None
        calls = expert_calls(self.index, question.kind, question.names, question.container)
        digest = hashlib.sha256("\0".join([question.kind, split, *spoken]).encode()).hexdigest()
        return Task(
            task_id=digest[:16],
            kind=question.kind,
            split=split,
            prompt=prompt,
            answer=answer,
            names=question.names,
            container=question.container,
            doc_ids=tuple(sorted({entity.doc_id for entity in question.entities if entity.doc_id})),
            difficulty=len(calls),
            procedural=question.entities[0].procedural,
        )


def _row(task: Task) -> dict[str, Any]:
    return {**vars(task), "names": list(task.names), "doc_ids": list(task.doc_ids)}


def _demonstration_row(task: Task, environment: LibraryEnvironment, index: LibraryIndex) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "messages": json.dumps(oracle_conversation(task, environment, index), ensure_ascii=False),
        "tools": json.dumps(tool_schemas(), ensure_ascii=False),
        "doc_ids": list(task.doc_ids),
    }


def _outcome(settings: TaskSettings, tasks: list[Task], entries: int, made_up: int) -> Outcome:
    splits = Counter(task.split for task in tasks)
    subjects = {split: _subjects(task for task in tasks if task.split == split) for split in SPLITS}
    shared = len(subjects["train"] & (subjects["validation"] | subjects["test"]))
    rows: list[dict[str, Scalar]] = []
    for kind in sorted({task.kind for task in tasks}, key=TASK_KINDS.index):
        of_kind = [task for task in tasks if task.kind == kind]
        commonest = Counter(task.answer for task in of_kind if task.split == "test").most_common(1)
        row: dict[str, Scalar] = {"kind": kind, "tool calls": max(task.difficulty for task in of_kind)}
        for split in SPLITS:
            row[split] = sum(task.split == split for task in of_kind)
        row["made up"] = sum(task.procedural for task in of_kind)
        row["commonest test answer"] = commonest[0][1] if commonest else 0
        rows.append(row)
    examples: list[dict[str, Scalar]] = [
        {"kind": task.kind, "prompt": task.prompt, "answer": task.answer, "made up": task.procedural}
        for task in [task for task in tasks if task.split == "train"][:12]
    ]
    lengths = Counter(task.difficulty for task in tasks)
    bars = ([str(key) for key in sorted(lengths)], [float(lengths[key]) for key in sorted(lengths)])
    return Outcome(
        counts={
            **{f"{split}_tasks": splits[split] for split in SPLITS},
            "procedural_tasks": sum(task.procedural for task in tasks),
            "index_entries": entries,
            "procedural_entries": made_up,
        },
        checks=[
            Check(
                "held_out_entities_are_unseen",
                shared == 0,
                "no name or container of a held-out task is one of a training task",
                shared,
                0,
            ),
            Check(
                "enough_test_tasks",
                splits["test"] * 2 >= settings.test,
                f"{splits['test']} of {settings.test} test tasks could be made; a small corpus gives fewer",
                splits["test"],
                settings.test / 2,
            ),
        ],
        tables=[Table.of("Tasks by kind", rows), Table.of("Training tasks", examples)],
        plots=[Plot("Tool calls that a task needs", "bar", "calls", "tasks", {"tasks": bars})],
    )


def _subjects(tasks: Iterator[Task]) -> set[str]:
    """Names, and containers as subjects and as answers."""
    subjects: set[str] = set()
    for task in tasks:
        subjects.update(task.names)
        if task.container:
            subjects.add(task.container)
        if task.kind in ("where", "both"):
            subjects.add(task.answer)
    return subjects
