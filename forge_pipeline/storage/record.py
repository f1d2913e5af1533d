"""The record that seals an artifact: what it is, what it was made from, and a digest of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from forge_pipeline.errors import StorageError

RECORD_FILE = "record.json"
REPORT_FILE = "report.json"
RECORD_SCHEMA = 1


@dataclass(frozen=True, order=True)
class ArtifactKey:
    """``owner`` is a corpus or a model, ``stage`` one of its stages, ``batch`` a part of that stage's output
    (None for a stage that is made in one piece)."""

    owner: str
    stage: str
    batch: str | None = None

    def __str__(self) -> str:
        name = f"{self.owner}/{self.stage}"
        return f"{name}[{self.batch}]" if self.batch else name

    @property
    def folder(self) -> str:
        """Where the artifacts of this key lie, relative to the store."""
        return f"{self.owner}/{self.stage}/{self.batch}" if self.batch else f"{self.owner}/{self.stage}/_"


@dataclass(frozen=True)
class FileEntry:
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What `record.json` holds.

    ``fingerprint`` names how the artifact was made (stage, code version, parameters, inputs' fingerprints): it
    is known before the work starts. ``content`` names what came out (a digest over the files' digests).
    ``inputs`` lists, by input name, the fingerprints of the artifacts read. ``seconds`` is the wall time of the
    library function alone.
    """

    key: ArtifactKey
    fingerprint: str
    code_version: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[tuple[ArtifactKey, str], ...]]
    counts: Mapping[str, Any]
    files: tuple[FileEntry, ...]
    content: str
    created: str
    seconds: float
    versions: Mapping[str, str]

    def to_json(self) -> str:
        body = asdict(self)
        body["schema"] = RECORD_SCHEMA
        body["inputs"] = {
            name: [{"key": asdict(key), "fingerprint": fingerprint} for key, fingerprint in entries]
            for name, entries in self.inputs.items()
        }
        return json.dumps(body, indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Record:
        """Raises StorageError, naming ``where``, if the text is not a record of this schema."""
        try:
            body = json.loads(text)
            schema = body.pop("schema")
            if schema != RECORD_SCHEMA:
                raise StorageError(
                    f"record schema {schema!r} is not {RECORD_SCHEMA}",
                    where=where,
                    fix="use the version of forge_pipeline that wrote it, or a new home folder",
                )
            body["key"] = ArtifactKey(**body["key"])
            body["inputs"] = {
                name: tuple((ArtifactKey(**entry["key"]), entry["fingerprint"]) for entry in entries)
                for name, entries in body["inputs"].items()
            }
            body["files"] = tuple(FileEntry(**entry) for entry in body["files"])
            return cls(**body)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"not a record: {type(error).__name__}: {error}",
                where=where,
                fix="the file was altered after sealing; remove the artifact's folder and run the stage again",
            ) from error
