"""The library answers briefly, the same each time, and nothing can be done to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.agents.environment import LISTED, LISTED_CHARACTERS, LibraryEnvironment, ToolError, short_lines
from forge_pipeline.agents.episode import Episode
from forge_pipeline.agents.index import INDEX_FILE, Entity, LibraryIndex, write_index
from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.agents.tasks import read_tasks
from forge_pipeline.agents.tools import run_call, tool_parameters, tool_schemas
from forge_pipeline.errors import StorageError
from forge_pipeline.tokens.chat import AssistantReply, ToolCall


def an_entity(name: str, container: str, place: int = 0) -> Entity:
    return Entity(
        f"{container}/{name}", name, "function", container, place, ("first", "second"), "int", "", None, "train"
    )


@pytest.fixture
def index(tmp_path: Path) -> Iterator[LibraryIndex]:
    path = tmp_path / "an index.sqlite"
    entities = [an_entity("open", "gzip"), an_entity("open", "bz2"), an_entity("shut", "gzip", 1)]
    write_index(path, [*entities, *(an_entity(f"name{n:02}", "many", n) for n in range(20))])
    with LibraryIndex(path) as opened:
        yield opened


def test_tools_answer_with_short_lines(index: LibraryIndex) -> None:
    environment = LibraryEnvironment(index)
    assert environment.reset(prompt="anything") is None
    assert environment.find("open") == "bz2\ngzip"
    assert environment.read("open", "gzip") == "return\nint\nargs\nfirst\nsecond"
    assert environment.list("gzip") == "open\nshut"
    assert environment.list("many").splitlines() == [f"name{n:02}" for n in range(LISTED)] + ["..."]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400), max_size=30))
def test_a_result_is_always_short(items: list[str]) -> None:
    result = short_lines(items)
    assert len(result.split("\n")) <= LISTED + 1
    assert len(result) <= 2 * LISTED_CHARACTERS + len("\n...")


def test_what_is_not_there_is_an_error_for_the_model(index: LibraryIndex) -> None:
    environment = LibraryEnvironment(index)
    for call in (
        ToolCall("find", {"name": "' OR '1'='1"}),
        ToolCall("find", {"name": "%"}),
        ToolCall("find", {}),
        ToolCall("find", {"name": ["open"]}),
        ToolCall("find", {"name": "open", "more": "x"}),
        ToolCall("read", {"name": "open", "module": "nowhere"}),
        ToolCall("reset", {}),
        ToolCall("_index", {}),
        ToolCall("__init__", {"index": "/etc/passwd"}),
    ):
        environment.reset()
        with pytest.raises(ToolError):
            run_call(environment, call)


def test_calls_run_out(index: LibraryIndex) -> None:
    environment = LibraryEnvironment(index, maximum_calls=2)
    environment.find("open")
    environment.find("open")
    with pytest.raises(ToolError, match="no calls left"):
        environment.find("open")
    environment.reset()
    assert environment.find("shut") == "gzip"


def test_the_index_can_be_neither_written_nor_left(index: LibraryIndex, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite"
    for statement in (
        "DELETE FROM entries",
        "CREATE TABLE more (x)",
        f"ATTACH DATABASE '{elsewhere}' AS elsewhere",
        "PRAGMA query_only = OFF",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
    ):
        with pytest.raises(sqlite3.DatabaseError):
            index._rows(statement)
    assert not elsewhere.exists()


def test_the_same_entities_give_the_same_bytes(tmp_path: Path) -> None:
    entities = [an_entity(f"name{n}", f"module{n % 3}", n) for n in range(50)]
    write_index(tmp_path / "a", entities)
    write_index(tmp_path / "b", reversed(entities))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_is_no_index_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"not a database" * 100)
    for name in ("noise", "missing"):
        with pytest.raises(StorageError) as caught:
            LibraryIndex(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)


def test_schemas_are_those_that_transformers_derives() -> None:
    from transformers.utils import get_json_schema

    expected = [get_json_schema(getattr(LibraryEnvironment, name)) for name in tool_parameters(LibraryEnvironment)]
    for schema in expected:
        schema["function"]["parameters"]["properties"].pop("self", None)
        schema["function"].pop("return", None)
    assert tool_schemas() == expected
    assert list(tool_parameters(LibraryEnvironment)) == ["find", "read", "list"]


def test_episodes_share_nothing(tasks_folder: Path, settings: AgentSettings) -> None:
    first, second = read_tasks(tasks_folder, "test")[:2]
    with LibraryIndex(tasks_folder / INDEX_FILE) as opened:
        alone = Episode(first, LibraryEnvironment(opened), settings.episode.turns)
        call = AssistantReply(call=ToolCall("find", {"name": first.names[0]}))
        expected = alone.reply(call)
        disturbed = Episode(first, LibraryEnvironment(opened), settings.episode.turns)
        other = Episode(second, LibraryEnvironment(opened), settings.episode.turns)
        for _ in range(settings.episode.turns):
            other.reply(AssistantReply(malformed="noise"))
        assert disturbed.reply(call) == expected
        assert disturbed.transcript == alone.transcript


def test_an_episode_ends_after_its_turns(tasks_folder: Path) -> None:
    task = read_tasks(tasks_folder, "test")[0]
    with LibraryIndex(tasks_folder / INDEX_FILE) as opened:
        episode = Episode(task, LibraryEnvironment(opened), 2)
        assert episode.reply(AssistantReply(malformed="not JSON")) == "error: malformed call"
        assert not episode.finished
        assert episode.reply(AssistantReply(call=ToolCall("find", {"name": "x"}))) is None
        assert episode.finished
        assert (episode.transcript.answer, episode.transcript.invalid_calls) == (None, 2)
