"""The kinds of task: how each is asked, how it is answered from the index, and how an expert would go about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from forge_pipeline.agents.entities import Pool
from forge_pipeline.agents.environment import is_complete, short_lines
from forge_pipeline.agents.index import Entity, LibraryIndex
from forge_pipeline.agents.settings import TaskKind
from forge_pipeline.errors import ForgeError
from forge_pipeline.tokens.chat import ToolCall

SYSTEM = "Use the tools."


class UnanswerableError(ForgeError):
    """A task to which the index has no single answer."""


@dataclass(frozen=True)
class Question:
    """What is asked: ``names`` are its subjects; ``container`` is given where the prompt names it."""

    kind: TaskKind
    names: tuple[str, ...]
    container: str | None
    section: bool
    entities: tuple[Entity, ...]

    def prompt(self) -> str:
        name = self.names[0]
        match self.kind:
            case "where":
                return f'Which document has the section "{name}"?' if self.section else f'Where is "{name}" defined?'
            case "returns":
                return f'What does "{name}" return?'
            case "first_parameter":
                return f'What is the first parameter of "{name}" in "{self.container}"?'
            case "both":
                noun = "document" if self.section else "module"
                return f'Which {noun} has both "{name}" and "{self.names[1]}"?'
            case "follows":
                return f'What comes right after "{name}"?'


def solve(index: LibraryIndex, kind: TaskKind, names: tuple[str, ...], container: str | None) -> str:
    """The one answer, from the index itself. Raises UnanswerableError if there is none or more than one."""
    if kind == "both":
        common = sorted(set(index.containers_of(names[0])) & set(index.containers_of(names[1])))
        return _only(common, names)
    home = container if container is not None else _only(index.containers_of(names[0]), names)
    if kind == "where":
        return home
    if kind == "follows":
        listed = index.names_in(home)
        place = listed.index(names[0]) + 1
        return _only(listed[place : place + 1], names)
    entity = index.entity(names[0], home)
    if entity is None:
        raise UnanswerableError(f"{home!r} does not define {names[0]!r}")
    return _only([entity.returns] if kind == "returns" else list(entity.parameters[:1]), names)


def _only(found: list[str], names: tuple[str, ...]) -> str:
    if len(found) != 1 or not found[0]:
        raise UnanswerableError(f"{len(found)} answers about {', '.join(names)}, not one")
    return found[0]


def expert_calls(index: LibraryIndex, kind: TaskKind, names: tuple[str, ...], container: str | None) -> list[ToolCall]:
    """The calls after which the answer stands in the results, and no more of them."""
    if kind == "both":
        return [ToolCall("find", {"name": name}) for name in names]
    if container is not None:
        return [ToolCall("read", {"name": names[0], "module": container})]
    calls = [ToolCall("find", {"name": names[0]})]
    if kind == "where":
        return calls
    home = _only(index.containers_of(names[0]), names)
    if kind == "follows":
        return [*calls, ToolCall("list", {"module": home})]
    return [*calls, ToolCall("read", {"name": names[0], "module": home})]


def candidates(pool: Pool, kind: TaskKind, index: LibraryIndex, generator: np.random.Generator) -> Iterator[Question]:
    """Questions of ``kind`` about the pool's entities, in random order, each entity asked about once."""
    order = [pool.entities[place] for place in generator.permutation(len(pool.entities)).tolist()]
    if kind == "both":
        yield from _pairs(pool, order)
        return
    for entity in order:
        section = entity.kind == "section"
        single = len(pool.containers[entity.name]) == 1
        home = entity.container if kind == "first_parameter" else None
        if (single or home) and _has_answer(entity, kind, index):
            yield Question(kind, (entity.name,), home, section, (entity,))


def _has_answer(entity: Entity, kind: TaskKind, index: LibraryIndex) -> bool:
    if kind == "returns":
        return bool(entity.returns) and entity.kind in ("function", "method")
    if kind == "first_parameter":
        return bool(entity.parameters)
    if kind == "follows":
        listed = index.names_in(entity.container)
        # All of it must fit into the tool's result.
        return entity.name in listed[:-1] and is_complete(short_lines(listed))
    return True


def _pairs(pool: Pool, order: list[Entity]) -> Iterator[Question]:
    """Two names with exactly one container in common, the first of them in several: one look-up is not enough."""
    members: dict[str, list[Entity]] = {}
    for entity in order:
        members.setdefault(entity.container, []).append(entity)
    for entity in order:
        if not 2 <= len(pool.containers[entity.name]) <= 4:
            continue
        homes = set(pool.containers[entity.name])
        partners = [
            other
            for other in members[entity.container]
            if other.name != entity.name
            and len(pool.containers[other.name]) <= 4
            and homes & set(pool.containers[other.name]) == {entity.container}
        ]
        # A partner in several containers makes the harder task.
        partners.sort(key=lambda other: len(pool.containers[other.name]) == 1)
        if partners:
            section = entity.kind == "section"
            yield Question("both", (entity.name, partners[0].name), None, section, (entity, partners[0]))
