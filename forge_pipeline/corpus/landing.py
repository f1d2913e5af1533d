"""New files become batches. A batch lists files by digest; it copies nothing."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from forge_pipeline.corpus.settings import GENERATORS, S3_SCHEME, LandingSettings
from forge_pipeline.corpus.sources import LandedFile, RemoteFiles, is_complete, list_source, local_path
from forge_pipeline.corpus.tables import LANDING_SCHEMA
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Progress
from forge_pipeline.storage.fingerprint import fingerprint_of

CODE_VERSION = "1"
_DIGEST_THREADS = 8
# How many files are digested before looking whether the batch is full.
_DIGEST_CHUNK = 512


@dataclass(frozen=True)
class Batch:
    """``files`` has the landing schema, sorted by source and path; ``waiting`` counts new files left for later."""

    name: str
    files: pa.Table
    waiting: int


def scan(settings: LandingSettings, known: pa.Table | None, generated: Path) -> list[LandedFile]:
    """Files that no registered batch lists with the same size and time of change, sorted by source and path.

    ``known`` holds the rows of every registered batch (landing schema); ``generated`` is the folder in which
    generated sources keep their pages. Raises SourceError for a source that is missing or cannot be listed.
    """
    seen: set[tuple[str, str, int, int]] = set()
    if known is not None:
        columns = (known[name].to_pylist() for name in ("source", "path", "bytes", "modified_ns"))
        seen.update(zip(*columns, strict=True))
    now = time.time_ns()
    found = []
    for source in settings.sources:
        settle = 0.0 if source.location in GENERATORS else settings.settle_seconds
        for file in list_source(source, settings, generated):
            if (file.source, file.path, file.bytes, file.modified_ns) not in seen and is_complete(file, now, settle):
                found.append(file)
    return sorted(found, key=lambda file: (file.source, file.path))


def register_batch(
    settings: LandingSettings,
    new: Sequence[LandedFile],
    known: pa.Table | None,
    batches: Iterable[str],
    progress: Progress,
) -> Batch | None:
    """Digest new files, in order, until a batch holds ``max_batch_bytes``; None if none of them has new content.

    ``batches`` are the names of the batches registered so far. The new name is the next ordinal and eight hex
    digits of the listing's digest. A file that cannot be read is listed with an empty digest: extraction will
    quarantine it. Raises SourceError if this would be the first batch and there is no file at all.
    """
    names = sorted(batches)
    if not new and not names:
        raise SourceError(
            "the corpus is empty: none of its sources holds a file",
            where="; ".join(f"{source.name}: {source.location}" for source in settings.sources),
            fix=f"put documents there (files younger than {settings.settle_seconds:g} s are waited for), "
            "or correct the locations and the include and exclude patterns",
        )
    seen: set[tuple[str, str, str]] = set()
    if known is not None:
        seen.update(zip(*(known[name].to_pylist() for name in ("source", "path", "sha256")), strict=True))
    rows: list[dict[str, object]] = []
    held = done = 0
    remote = RemoteFiles()
    with ThreadPoolExecutor(_DIGEST_THREADS) as pool, progress.task("digest files", len(new), "files") as task:
        while done < len(new) and held < settings.max_batch_bytes:
            chunk = new[done : done + _DIGEST_CHUNK]
            for file, digest in zip(chunk, pool.map(lambda file: _digest(file, remote), chunk), strict=True):
                if held >= settings.max_batch_bytes:
                    break
                done += 1
                task.advance()
                if digest is not None and (file.source, file.path, digest) not in seen:
                    rows.append({**asdict(file), "sha256": digest})
                    held += file.bytes
    if not rows:
        return None
    # Where a file lies and when it was changed do not name the batch: the same content elsewhere is the same batch.
    names_batch = [{key: value for key, value in row.items() if key not in ("location", "modified_ns")} for row in rows]
    ordinal = max((int(name.split("-")[0]) for name in names), default=0) + 1
    name = f"{ordinal:04d}-{fingerprint_of(names_batch)[:8]}"
    return Batch(name, pa.Table.from_pylist(rows, LANDING_SCHEMA), len(new) - done)


def _digest(file: LandedFile, remote: RemoteFiles) -> str | None:
    """SHA-256 of the file's bytes; "" if it cannot be read, None if it is gone."""
    try:
        if file.location.startswith(S3_SCHEME):
            with tempfile.TemporaryDirectory(prefix="forge-") as folder:
                path = Path(folder) / "object"
                remote.fetch(file.location, path)
                return _digest_of(path)
        return _digest_of(local_path(file.location))
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
