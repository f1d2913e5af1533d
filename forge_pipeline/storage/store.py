"""The artifact store: find, read and seal artifacts, in a local folder or in S3 with a local copy.

Layout, the same in a folder and in a bucket::

    <owner>/<stage>/<batch or _>/<fingerprint>/record.json    written last: without it nothing is sealed
    <owner>/<stage>/<batch or _>/<fingerprint>/report.json    counts, checks, tables and plots for people
    <owner>/<stage>/<batch or _>/<fingerprint>/...            the stage's files
    <owner>/<stage>/<batch or _>/current.json                 the fingerprint that a reader gets by default
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import Outcome
from forge_pipeline.storage.fingerprint import fingerprint_of
from forge_pipeline.storage.home import Home
from forge_pipeline.storage.record import RECORD_FILE, REPORT_FILE, ArtifactKey, FileEntry, Record
from forge_pipeline.storage.remote import RemoteObjects, connect

CURRENT_FILE = "current.json"
STORE_VARIABLE = "FORGE_STORE"
# 64 bits of the fingerprint name the folder: paths stay readable, and the record holds all of it.
FOLDER_DIGITS = 16


@dataclass(frozen=True)
class Origin:
    """How an artifact was made, known before it is sealed."""

    code_version: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[tuple[ArtifactKey, str], ...]]
    created: str
    seconds: float
    versions: Mapping[str, str]


class ArtifactStore:
    """Sealed artifacts under ``home.artifacts``, mirrored to ``remote`` if one is given."""

    def __init__(self, home: Home, remote: RemoteObjects | None = None) -> None:
        self.home = home
        self.remote = remote

    # -- reading -------------------------------------------------------------------------------------------

    def find(self, key: ArtifactKey, fingerprint: str) -> Record | None:
        """The record of the sealed artifact with this fingerprint, or None."""
        relative = f"{_relative(key, fingerprint)}/{RECORD_FILE}"
        text = self._read_text(relative)
        if text is None:
            return None
        record = Record.from_json(text, where=relative)
        if record.fingerprint != fingerprint:
            raise StorageError(
                f"the record says fingerprint {record.fingerprint}, its folder {fingerprint}",
                where=relative,
                fix="the artifact was moved or altered; remove its folder and run the stage again",
            )
        return record

    def current(self, key: ArtifactKey) -> Record | None:
        """The record that readers without a fingerprint get: the one most recently made current."""
        text = self._read_text(f"{key.folder}/{CURRENT_FILE}")
        if text is None:
            return None
        return self.find(key, json.loads(text)["fingerprint"])

    def read(self, record: Record) -> Path:
        """The local folder of a sealed artifact, fetched and verified first if it is only in the remote."""
        local = self.home.artifacts / _relative(record.key, record.fingerprint)
        if (local / RECORD_FILE).exists():
            return local
        if self.remote is None:
            raise StorageError(
                f"{record.key} with fingerprint {record.fingerprint[:FOLDER_DIGITS]} is not in the store",
                where=str(local),
                fix="run the stage again",
            )
        self._fetch(record, local)
        return local

    def outcome(self, record: Record) -> Outcome:
        """The report sealed beside the artifact."""
        relative = f"{_relative(record.key, record.fingerprint)}/{REPORT_FILE}"
        text = self._read_text(relative)
        if text is None:
            raise StorageError("the report of a sealed artifact is missing", where=relative, fix="run the stage again")
        return Outcome.from_json(json.loads(text))

    def batches(self, owner: str, stage: str) -> list[str]:
        """The batches of a stage that have a current artifact, in the order of their names."""
        names: set[str] = set()
        root = self.home.artifacts / owner / stage
        if root.is_dir():
            names.update(path.parent.name for path in root.glob(f"*/{CURRENT_FILE}"))
        if self.remote is not None:
            prefix = f"{owner}/{stage}/"
            names.update(
                name[len(prefix) :].split("/")[0]
                for name in self.remote.names(prefix)
                if name.endswith(f"/{CURRENT_FILE}")
            )
        return sorted(names - {"_"})

    def verify(self, record: Record) -> list[str]:
        """Recompute every digest of a sealed artifact; returns what differs (an empty list: nothing)."""
        folder = self.read(record)
        found = {entry.path: entry for entry in digest_files(folder)}
        problems = []
        for entry in record.files:
            actual = found.pop(entry.path, None)
            if actual is None:
                problems.append(f"{entry.path}: missing")
            elif actual != entry:
                problems.append(f"{entry.path}: sha256 is {actual.sha256}, sealed as {entry.sha256}")
        problems.extend(f"{path}: not in the record" for path in sorted(found))
        return problems

    # -- writing -------------------------------------------------------------------------------------------

    def work_folder(self, key: ArtifactKey, fingerprint: str) -> Path:
        """Where the stage works until it is sealed. It outlives a crash, so that training can resume."""
        return self.home.work / _relative(key, fingerprint)

    def begin(self, key: ArtifactKey, fingerprint: str) -> Path:
        """An empty output folder inside the work folder."""
        output = self.work_folder(key, fingerprint) / "output"
        if output.exists():
            shutil.rmtree(output)
        output.mkdir(parents=True)
        return output

    def seal(self, key: ArtifactKey, fingerprint: str, output: Path, origin: Origin, outcome: Outcome) -> Record:
        """Digest ``output``, write the report and the record, and publish all of it in one step.

        A reader sees the whole artifact or none of it: locally by one rename, remotely because the record is
        uploaded last. The first to seal a fingerprint wins; a second one is discarded.
        """
        existing = self.find(key, fingerprint)
        if existing is not None:
            shutil.rmtree(output)
            return existing
        (output / REPORT_FILE).write_text(json.dumps(outcome.to_json(), indent=1, sort_keys=True), encoding="utf-8")
        files = tuple(digest_files(output))
        record = Record(
            key=key,
            fingerprint=fingerprint,
            code_version=origin.code_version,
            parameters=origin.parameters,
            inputs=origin.inputs,
            counts=outcome.counts,
            files=files,
            # The report is left out: it may hold timings, which differ between two runs of the same work.
            content=fingerprint_of([[entry.path, entry.sha256] for entry in files if entry.path != REPORT_FILE]),
            created=origin.created,
            seconds=origin.seconds,
            versions=origin.versions,
        )
        record_file = output / RECORD_FILE
        record_file.write_text(record.to_json(), encoding="utf-8")
        _flush_to_disk(output)
        target = self.home.artifacts / _relative(key, fingerprint)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(output, target)
        except OSError as error:
            if not (target / RECORD_FILE).exists():
                raise StorageError(
                    f"cannot publish {key}: {error}", where=str(target), fix="free the path, then run the stage again"
                ) from error
            shutil.rmtree(output)
        _flush_to_disk(target.parent)
        if self.remote is not None:
            self._upload(record, target)
        self.make_current(record)
        return record

    def make_current(self, record: Record) -> None:
        """Let readers without a fingerprint get this artifact."""
        text = json.dumps({"fingerprint": record.fingerprint})
        pointer = self.home.artifacts / record.key.folder / CURRENT_FILE
        if pointer.exists() and pointer.read_text(encoding="utf-8") == text:
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        aside = pointer.with_name(f".{CURRENT_FILE}.{os.getpid()}")
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, pointer)
        if self.remote is not None:
            self.remote.put_bytes(f"{record.key.folder}/{CURRENT_FILE}", text.encode())

    # -- remote --------------------------------------------------------------------------------------------

    def _read_text(self, relative: str) -> str | None:
        local = self.home.artifacts / relative
        # A remote store is the truth for what is current; a sealed file never changes, so any copy will do.
        if self.remote is not None and (relative.endswith(CURRENT_FILE) or not local.exists()):
            data = self.remote.get_bytes(relative)
            return None if data is None else data.decode("utf-8")
        return local.read_text(encoding="utf-8") if local.exists() else None

    def _upload(self, record: Record, folder: Path) -> None:
        assert self.remote is not None
        remote, base = self.remote, _relative(record.key, record.fingerprint)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda entry: remote.put_file(f"{base}/{entry.path}", folder / entry.path), record.files))
        remote.put_file(f"{base}/{RECORD_FILE}", folder / RECORD_FILE)

    def _fetch(self, record: Record, target: Path) -> None:
        assert self.remote is not None
        remote, base = self.remote, _relative(record.key, record.fingerprint)
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda entry: remote.get_file(f"{base}/{entry.path}", aside / entry.path), record.files))
        if tuple(digest_files(aside)) != record.files:
            shutil.rmtree(aside)
            raise StorageError(
                f"what was fetched of {record.key} does not match its record",
                where=f"{remote}/{base}",
                fix="the objects were altered after sealing; restore an earlier object version",
            )
        remote.get_file(f"{base}/{RECORD_FILE}", aside / RECORD_FILE)
        try:
            os.rename(aside, target)
        except OSError:
            # Another process fetched it first.
            shutil.rmtree(aside)


def open_store(home: Home, location: str | None = None) -> ArtifactStore:
    """The store at ``location`` (`s3://bucket/prefix`), else at FORGE_STORE, else local to ``home``."""
    location = location or os.environ.get(STORE_VARIABLE)
    return ArtifactStore(home, connect(location) if location else None)


def digest_files(folder: Path) -> Iterator[FileEntry]:
    """Every file below ``folder`` except the record, sorted by path, with its SHA-256."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative != RECORD_FILE:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield FileEntry(relative, path.stat().st_size, digest)


def _relative(key: ArtifactKey, fingerprint: str) -> str:
    return f"{key.folder}/{fingerprint[:FOLDER_DIGITS]}"


def _flush_to_disk(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
