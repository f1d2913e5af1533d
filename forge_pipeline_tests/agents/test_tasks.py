"""Tasks are answerable, balanced, and held-out ones are about what training never meets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forge_pipeline.agents.environment import LibraryEnvironment
from forge_pipeline.agents.index import INDEX_FILE, LibraryIndex
from forge_pipeline.agents.procedural import NameMaker, make_world
from forge_pipeline.agents.questions import solve
from forge_pipeline.agents.settings import TASK_KINDS, AgentSettings, TaskSettings
from forge_pipeline.agents.tasks import build_tasks, demonstrations, oracle_conversation, read_tasks
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Outcome, SilentProgress

CatalogWriter = Callable[[list[dict[str, Any]]], Path]


def build(settings: TaskSettings, folders: list[Path], output: Path) -> Outcome:
    output.mkdir()
    return build_tasks(settings, folders, output, SilentProgress())


def words_spoken(conversation: list[dict[str, Any]]) -> set[str]:
    """Every line of tool results and every argument of calls."""
    spoken: set[str] = set()
    for message in conversation:
        if message["role"] == "tool":
            spoken.update(message["content"].splitlines())
        for call in message.get("tool_calls", []):
            spoken.update(call["function"]["arguments"].values())
    return spoken


def test_every_kind_and_origin_is_there(tasks_folder: Path) -> None:
    tasks = read_tasks(tasks_folder)
    for split in ("train", "test"):
        assert {task.kind for task in tasks if task.split == split} == set(TASK_KINDS)
        assert {task.procedural for task in tasks if task.split == split} == {True, False}


def test_the_index_gives_each_answer_and_prompts_do_not(tasks_folder: Path) -> None:
    with LibraryIndex(tasks_folder / INDEX_FILE) as index:
        for task in read_tasks(tasks_folder):
            assert solve(index, task.kind, task.names, task.container) == task.answer
            assert task.answer.casefold() not in task.prompt.casefold()


def test_the_expert_finds_the_answer_in_the_results_with_the_calls_counted(tasks_folder: Path) -> None:
    with LibraryIndex(tasks_folder / INDEX_FILE) as index:
        for task in read_tasks(tasks_folder):
            conversation = oracle_conversation(task, LibraryEnvironment(index), index)
            results = [message["content"] for message in conversation if message["role"] == "tool"]
            assert len(results) == task.difficulty
            assert not any(result.startswith("error") for result in results)
            assert task.answer in results[-1].splitlines()
            assert conversation[-1] == {"role": "assistant", "content": task.answer}


def test_nothing_of_a_held_out_task_is_met_in_training(tasks_folder: Path) -> None:
    with LibraryIndex(tasks_folder / INDEX_FILE) as index:
        spoken: dict[bool, set[str]] = {True: set(), False: set()}
        for task in read_tasks(tasks_folder):
            words = words_spoken(oracle_conversation(task, LibraryEnvironment(index), index))
            spoken[task.split == "train"] |= {*words, *task.names}
        subjects = {entity for entity in spoken[False] if index.containers_of(entity) or index.names_in(entity)}
    assert len(subjects) > 50
    assert sorted(subjects & spoken[True]) == []


def test_no_answer_is_frequent(tasks_folder: Path, settings: AgentSettings) -> None:
    tasks = read_tasks(tasks_folder)
    for split in ("train", "test"):
        for kind in TASK_KINDS:
            of_kind = [task for task in tasks if (task.split, task.kind) == (split, kind)]
            most = Counter(task.answer for task in of_kind).most_common(1)[0][1]
            # One of each origin is always allowed.
            assert most <= max(2, settings.tasks.maximum_answer_share * len(of_kind))


def test_building_again_gives_the_same_bytes_and_another_seed_does_not(
    tmp_path: Path, write_catalog: CatalogWriter, code_rows: list[dict[str, Any]]
) -> None:
    folder = write_catalog(code_rows)
    settings = TaskSettings(train=60, validation=5, test=30)
    for name, chosen in (("a", settings), ("b", settings), ("c", settings.model_copy(update={"seed": 1}))):
        build(chosen, [folder], tmp_path / name)
    for file in ("index.sqlite", "tasks.parquet", "demonstrations.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / "tasks.parquet").read_bytes() != (tmp_path / "c" / "tasks.parquet").read_bytes()


def test_the_cut_into_batches_changes_no_task(
    tmp_path: Path, write_catalog: CatalogWriter, code_rows: list[dict[str, Any]]
) -> None:
    settings = TaskSettings(train=60, validation=5, test=30)
    build(settings, [write_catalog(code_rows)], tmp_path / "whole")
    build(settings, [write_catalog(code_rows[:70]), write_catalog(code_rows[70:])], tmp_path / "parts")
    assert read_tasks(tmp_path / "whole") == read_tasks(tmp_path / "parts")


def test_a_corpus_of_prose_gives_tasks_about_its_sections(
    tmp_path: Path, write_catalog: CatalogWriter, prose_rows: list[dict[str, Any]]
) -> None:
    settings = TaskSettings(train=80, validation=0, test=12, procedural_fraction=0)
    outcome = build(settings, [write_catalog(prose_rows)], tmp_path / "tasks")
    tasks = read_tasks(tmp_path / "tasks")
    assert {task.kind for task in tasks} == {"where", "follows"}
    assert any(task.prompt == 'Which document has the section "Topic 3 basics"?' for task in tasks)
    assert outcome.counts["test_tasks"] == sum(task.split == "test" for task in tasks) > 0
    # "Introduction" is everywhere: asking where it stands would have no single answer.
    assert not any("Introduction" in task.names for task in tasks)


def test_a_tiny_corpus_gives_few_tasks_and_says_so(
    tmp_path: Path, write_catalog: CatalogWriter, make_entry: Callable[..., dict[str, Any]]
) -> None:
    rows = [make_entry("alpha", "one", "train"), make_entry("beta", "two", "test")]
    settings = TaskSettings(train=50, test=50, procedural_fraction=0)
    outcome = build(settings, [write_catalog(rows)], tmp_path / "tasks")
    assert outcome.counts["train_tasks"] == 2
    check = next(check for check in outcome.checks if check.name == "enough_test_tasks")
    assert not check.passed


def test_a_corpus_without_held_out_entries_is_refused(
    tmp_path: Path, write_catalog: CatalogWriter, make_entry: Callable[..., dict[str, Any]]
) -> None:
    folder = write_catalog([make_entry("alpha", "one", "train")])
    with pytest.raises(SourceError, match="no test task"):
        build(TaskSettings(procedural_fraction=0), [folder], tmp_path / "tasks")


def test_a_name_that_training_shares_is_not_held_out(
    tmp_path: Path, write_catalog: CatalogWriter, make_entry: Callable[..., dict[str, Any]]
) -> None:
    rows = [make_entry("alpha", "one", "train"), make_entry("alpha", "two", "test"), make_entry("beta", "two", "test")]
    build(TaskSettings(train=20, test=20, procedural_fraction=0.5), [write_catalog(rows)], tmp_path / "tasks")
    held_out = [task for task in read_tasks(tmp_path / "tasks", "test") if not task.procedural]
    assert held_out
    assert not any("alpha" in task.names for task in held_out)


def test_demonstrations_are_of_training_tasks_only(tasks_folder: Path) -> None:
    tasks = {task.task_id: task for task in read_tasks(tasks_folder)}
    shown = list(demonstrations(tasks_folder, 30, seed=1))
    assert len({item["task_id"] for item in shown}) == 30
    for item in shown:
        task = tasks[item["task_id"]]
        assert task.split == "train"
        assert item["messages"][1]["content"] == task.prompt
        assert item["messages"][-1]["content"] == task.answer
        assert tuple(item["doc_ids"]) == task.doc_ids
        assert [tool["function"]["name"] for tool in item["tools"]] == ["find", "read", "list"]
    assert shown == list(demonstrations(tasks_folder, 30, seed=1))
    assert shown != list(demonstrations(tasks_folder, 30, seed=2))
    assert json.dumps(shown)


def test_made_up_names_are_new_and_single_out_modules() -> None:
    taken = {"real"}
    maker = NameMaker(["value", "count"], np.random.default_rng(0), taken)
    entities = make_world(maker, 40, "train")
    assert "real" not in {entity.name for entity in entities}
    homes = Counter(entity.name for entity in entities)
    assert set(homes.values()) == {1, 2}
    shared: dict[str, list[str]] = {}
    for entity in entities:
        if homes[entity.name] == 2:
            shared.setdefault(entity.container, []).append(entity.name)
    # The two shared names of a module have no other module in common.
    assert len({tuple(sorted(names)) for names in shared.values()}) == 40
