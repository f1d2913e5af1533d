"""The library as tools see it: one SQLite file, opened read-only, asked with parameters only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from forge_pipeline.errors import StorageError

INDEX_FILE = "index.sqlite"
_SCHEMA = """
CREATE TABLE entries (
    entry_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    container TEXT NOT NULL,
    place INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    returns TEXT NOT NULL,
    summary TEXT NOT NULL,
    doc_id TEXT,
    split TEXT NOT NULL,
    procedural INTEGER NOT NULL,
    UNIQUE (container, name)
) WITHOUT ROWID, STRICT;
CREATE INDEX entries_by_name ON entries (name, container);
CREATE INDEX entries_by_container ON entries (container, place);
"""
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ})


@dataclass(frozen=True)
class Entity:
    """One thing that tasks can be about. ``place`` orders the entities of a container; ``doc_id`` is None for
    made-up ones (``procedural``)."""

    entry_id: str
    name: str
    kind: str
    container: str
    place: int
    parameters: tuple[str, ...]
    returns: str
    summary: str
    doc_id: str | None
    split: str
    procedural: bool = False


def write_index(path: Path, entities: Iterable[Entity]) -> int:
    """Write a new index; the same entities give the same bytes. Returns their number."""
    rows = [
        (
            *(entity.entry_id, entity.name, entity.kind, entity.container, entity.place),
            *(json.dumps(entity.parameters), entity.returns, entity.summary),
            *(entity.doc_id, entity.split, int(entity.procedural)),
        )
        for entity in sorted(entities, key=lambda entity: entity.entry_id)
    ]
    connection = sqlite3.connect(path)
    try:
        connection.executescript(_SCHEMA)
        with connection:
            connection.executemany(f"INSERT INTO entries VALUES ({', '.join('?' * 11)})", rows)
    finally:
        connection.close()
    return len(rows)


class LibraryIndex:
    """Read access to an index. The connection can neither write nor reach another file."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError if ``path`` is not an index."""
        if not path.is_file():
            raise StorageError("the index of the library is missing", where=str(path), fix="build the tasks again")
        self._connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._connection.set_authorizer(_authorise)
        try:
            self._rows("SELECT entry_id FROM entries LIMIT 1")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise StorageError(
                f"not an index of the library: {error}", where=str(path), fix="build the tasks again"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def containers_of(self, name: str) -> list[str]:
        """The containers that define ``name``, sorted."""
        return [
            str(row[0]) for row in self._rows("SELECT container FROM entries WHERE name = ? ORDER BY container", name)
        ]

    def names_in(self, container: str) -> list[str]:
        """The names that ``container`` defines, in the order in which they stand in it."""
        return [
            str(row[0])
            for row in self._rows("SELECT name FROM entries WHERE container = ? ORDER BY place, name", container)
        ]

    def entity(self, name: str, container: str) -> Entity | None:
        rows = self._rows("SELECT * FROM entries WHERE name = ? AND container = ?", name, container)
        if not rows:
            return None
        entry_id, name, kind, container, place, parameters, returns, summary, doc_id, split, procedural = rows[0]
        listed = tuple(str(parameter) for parameter in json.loads(parameters))
        return Entity(entry_id, name, kind, container, place, listed, returns, summary, doc_id, split, bool(procedural))

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()


def _authorise(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
