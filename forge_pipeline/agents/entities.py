"""The entities of a corpus, from its catalog, and which of them a task may be about."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from forge_pipeline.agents.index import Entity
from forge_pipeline.corpus.signatures import parse_parameters
from forge_pipeline.corpus.tables import CATALOG, read_table

_COLUMNS = [
    *("entry_id", "name", "kind", "container", "signature", "returns", "summary"),
    *("doc_id", "split", "start"),
]
_LONGEST = 120
# Plain words and dotted names: a name in quotes then looks to the tokenizer as it does at the start of a line.
_SPEAKABLE = re.compile(r"[^\W\d_][^\n\"\\{}<>|]*")


def read_entities(training: Sequence[Path]) -> list[Entity]:
    """The entities of all batches, ordered by id, each name of a container once.

    The same thing may be described twice (a source file and a page made from it): the description with the
    fuller signature is kept, but it is held out if any of them is.
    """
    found: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for folder in training:
        for row in read_table(folder, CATALOG, _COLUMNS).to_pylist():
            row["name"], row["container"] = _one_line(row["name"]), _one_line(row["container"])
            if row["name"] and row["container"] and max(len(row["name"]), len(row["container"])) <= _LONGEST:
                found[row["container"], row["name"]].append(row)
    entities = []
    for rows in found.values():
        rows.sort(key=lambda row: (-len(row["signature"] or ""), row["entry_id"]))
        splits = {row["split"] for row in rows}
        split = next(split for split in ("test", "validation", "train") if split in splits)
        entities.append(_entity(rows[0], split))
    return sorted(entities, key=lambda entity: entity.entry_id)


def _entity(row: dict, split: str) -> Entity:
    parameters = None
    if row["kind"] in ("function", "method"):
        parameters = parse_parameters(row["signature"] or "")
    return Entity(
        entry_id=row["entry_id"],
        name=row["name"],
        kind=row["kind"],
        container=row["container"],
        place=row["start"] or 0,
        parameters=tuple(parameter.name for parameter in parameters or ()),
        returns=_one_line(row["returns"]),
        summary=_one_line(row["summary"]),
        doc_id=row["doc_id"],
        split=split,
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def is_speakable(text: str, characters: int) -> bool:
    """Whether a prompt or an answer may hold ``text``: short, on one line, beginning with a letter."""
    return len(text) <= characters and _SPEAKABLE.fullmatch(text) is not None


class Pool:
    """The entities of one split and origin whose name and container belong to it alone.

    A name that also stands in a container of another split, or a container with entries of another one, is no
    subject here: what is held out would otherwise be met in training.
    """

    def __init__(self, entities: Iterable[Entity], split: str, procedural: bool) -> None:
        self.split = split
        entities = list(entities)
        foreign = [entity for entity in entities if entity.split != split]
        names, containers = {entity.name for entity in foreign}, {entity.container for entity in foreign}
        clean_names = {entity.name for entity in entities} - names
        # A clean name may stand in a container that is not, which would then be among its tool results.
        for entity in entities:
            if entity.container in containers:
                clean_names.discard(entity.name)
        self.entities = [
            entity
            for entity in entities
            if entity.split == split and entity.procedural == procedural and entity.name in clean_names
        ]
        self.containers: dict[str, list[str]] = defaultdict(list)
        for entity in self.entities:
            self.containers[entity.name].append(entity.container)
