"""Joins over the Parquet tables of many artifacts, by DuckDB, in memory: nothing is copied or kept."""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from forge_pipeline.storage import Record


class Tables:
    """One DuckDB connection with views over stored tables. Used as a context manager."""

    def __init__(self) -> None:
        # Paths are bound, never spelled into SQL, and DuckDB may fetch no extension.
        self._connection = duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
        self._connection.execute("SET preserve_insertion_order = true")
        self._number = 0

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def view(self, name: str, schema: pa.Schema, tables: Iterable[tuple[Record, Path]]) -> None:
        """Define ``name``: the rows of all ``tables``, with the columns of ``schema`` (null where an older table
        lacks one), the artifact's `batch` (empty for an unbatched stage), `stage` and `fingerprint`, `place` (of the
        file in ``tables``) and `line` (of the row in its file).

        ``name`` and the columns are the caller's own words, not data.
        """
        found = list(tables)
        empty = self._register(schema.empty_table())
        if not found:
            self._connection.execute(
                f"CREATE OR REPLACE VIEW {name} AS SELECT *, '' AS batch, '' AS stage, '' AS fingerprint, "
                f"0::BIGINT AS place, 0::BIGINT AS line FROM {empty}"
            )
            return
        places = self._register(
            pa.table(
                {
                    "place_file": [str(path) for _, path in found],
                    "batch": [record.key.batch or "" for record, _ in found],
                    "stage": [record.key.stage for record, _ in found],
                    "fingerprint": [record.fingerprint for record, _ in found],
                    "place": pa.array(range(len(found)), pa.int64()),
                }
            )
        )
        columns = ", ".join(f'rows_of."{column}"' for column in schema.names)
        # Escaped, as DuckDB takes a path for a pattern.
        files = [escape(str(path)) for _, path in found]
        relation = self._connection.read_parquet(
            files, union_by_name=True, filename=True, file_row_number=True, hive_partitioning=False
        )
        # The empty table lends missing columns their name and type.
        self._number += 1
        rows = f"rows_{self._number}"
        relation.create_view(rows)
        self._connection.execute(
            f"CREATE OR REPLACE VIEW {name} AS "
            f"SELECT {columns}, batch, stage, fingerprint, place, file_row_number AS line FROM "
            f"(SELECT *, '' AS filename, 0 AS file_row_number FROM {empty} UNION ALL BY NAME SELECT * FROM {rows}) "
            f"AS rows_of JOIN {places} ON rows_of.filename = place_file"
        )

    def read(self, name: str, path: Path) -> None:
        """Define ``name`` as the rows of one Parquet file."""
        relation = self._connection.read_parquet(escape(str(path)), hive_partitioning=False)
        relation.create_view(name, replace=True)

    def give(self, name: str, table: pa.Table) -> None:
        """Define ``name`` as the rows of a table in memory."""
        self._connection.register(name, table)

    def define(self, name: str, sql: str) -> None:
        """Define ``name`` as a query over other views."""
        self._connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")

    def table(self, sql: str, **values: Any) -> pa.Table:
        """The result of a query whose ``$names`` are bound to ``values``."""
        return self._connection.sql(sql, params=values or None).to_arrow_table()

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.table(sql, **values).to_pylist()
        return rows

    def row(self, sql: str, **values: Any) -> dict[str, Any]:
        """The only row of an aggregate."""
        return self.rows(sql, **values)[0]

    def _register(self, table: pa.Table) -> str:
        self._number += 1
        name = f"given_{self._number}"
        self._connection.register(name, table)
        return name
