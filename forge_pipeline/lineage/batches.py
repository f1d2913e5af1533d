"""Batches of a corpus: registering what has landed, and knowing what was registered."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from forge_pipeline.corpus import landing
from forge_pipeline.corpus.settings import LandingSettings
from forge_pipeline.lineage.execution import versions
from forge_pipeline.reporting import Outcome, Progress, Table
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Record, fingerprint_of
from forge_pipeline.storage.store import Origin

LANDING_STAGE = "landing_files"
FILES_TABLE = "files.parquet"


class Batches:
    """The batches of one corpus in one store.

    ``documents_from`` tells apart the batches of the recipe's own sources from those of folders given in their
    place: each set of sources has its own sequence of batches, so that going back and forth loses nothing.
    """

    def __init__(self, corpus: str, settings: LandingSettings, store: ArtifactStore, documents_from: str) -> None:
        self.corpus = corpus
        self.settings = settings
        self.store = store
        self.documents_from = documents_from

    def records(self) -> list[Record]:
        """The registered batches, oldest first."""
        found = []
        for name in self.store.batches(self.corpus, LANDING_STAGE):
            record = self.store.current(ArtifactKey(self.corpus, LANDING_STAGE, name))
            if record is not None and record.parameters["documents_from"] == self.documents_from:
                found.append(record)
        return found

    def names(self) -> list[str]:
        return [record.key.batch for record in self.records() if record.key.batch]

    def register(self, progress: Progress, *, most: int | None = None) -> list[str]:
        """Register new files as batches (at most ``most``); returns the new batches' names.

        Raises SourceError if a source is missing, or if the corpus has no batch and nothing has landed.
        """
        added: list[str] = []
        with self._alone():
            while most is None or len(added) < most:
                name = self._register_one(progress)
                if name is None:
                    break
                added.append(name)
        return added

    def _register_one(self, progress: Progress) -> str | None:
        records = self.records()
        known = self._known(records)
        new = landing.scan(self.settings, known, self._generated())
        names = [record.key.batch for record in records if record.key.batch]
        batch = landing.register_batch(self.settings, new, known, names, progress)
        if batch is None:
            return None
        self._seal(batch)
        progress.note(f"{self.corpus}: batch {batch.name} with {batch.files.num_rows} files")
        return batch.name

    def _seal(self, batch: landing.Batch) -> None:
        key = ArtifactKey(self.corpus, LANDING_STAGE, batch.name)
        parameters = {"documents_from": self.documents_from}
        content = batch.files.drop_columns(["modified_ns", "location"]).to_pylist()
        fingerprint = fingerprint_of({"artifact": str(key), "parameters": parameters, "files": content})
        output = self.store.begin(key, fingerprint)
        pq.write_table(batch.files, output / FILES_TABLE, compression="zstd")
        self.store.seal(key, fingerprint, output, _landed_now(parameters), _describe(batch))

    def _known(self, records: list[Record]) -> pa.Table | None:
        tables = [pq.read_table(self.store.read(record) / FILES_TABLE) for record in records]
        return pa.concat_tables(tables) if tables else None

    def _generated(self) -> Path:
        return self.store.home.landing / self.corpus / ".generated"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One registration at a time: the sensor and a person may both start one."""
        path = self.store.home.leases / f"landing-{self.corpus}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _landed_now(parameters: dict[str, str]) -> Origin:
    # Landing is the one stage whose time is not the pipeline's: its record carries the files' own times.
    return Origin(
        code_version=landing.CODE_VERSION,
        parameters=parameters,
        inputs={},
        created="",
        seconds=0.0,
        versions=versions(),
    )


def _describe(batch: landing.Batch) -> Outcome:
    files = batch.files
    by_source = files.group_by("source").aggregate([("bytes", "sum"), ("path", "count")]).sort_by("source").to_pylist()
    rows = [
        {"source": row["source"], "files": row["path_count"], "megabytes": round(row["bytes_sum"] / 1e6, 2)}
        for row in by_source
    ]
    total = sum(row["bytes_sum"] for row in by_source)
    return Outcome(
        counts={"files": files.num_rows, "bytes": total, "waiting": batch.waiting},
        tables=[Table.of("Files by source", rows)],
    )
