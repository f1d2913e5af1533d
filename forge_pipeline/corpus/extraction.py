"""Landed files to documents. A file that cannot be read is quarantined with its reason; the batch goes on."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.settings import S3_SCHEME, ExtractionSettings
from forge_pipeline.corpus.sources import RemoteFiles, local_path
from forge_pipeline.corpus.summaries import ROWS, count_table, length_histogram, prefixed
from forge_pipeline.corpus.workers import Failure, Job, run_job
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Outcome, Progress, Table

CODE_VERSION = "1"
DOC_ID_DIGITS = 32
_FETCH_THREADS = 8


def extract_documents(
    settings: ExtractionSettings, landing: Path, output: Path, progress: Progress, *, workers: int | None = None
) -> Outcome:
    """Read every file of a batch in isolated workers; write `documents.parquet` and `quarantine.parquet`.

    ``landing`` holds `files.parquet`. The order of rows is that of the files and of the records in them. Raises
    SourceError if no file of the batch gives a document.
    """
    files = tables.read_table(landing, tables.FILES).to_pylist()
    kinds: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    networks: set[str] = set()
    lengths: list[int] = []
    bytes_kept = files_read = 0
    with (
        _local_files(files) as items,
        tables.RowWriter(output / tables.DOCUMENTS, tables.DOCUMENT_SCHEMA) as documents,
        tables.RowWriter(output / tables.QUARANTINE, tables.QUARANTINE_SCHEMA) as quarantine,
        progress.task("extract text", len(files), "files") as task,
    ):
        for file, result in zip(files, run_job(_reading(settings), items, workers, networks.add), strict=True):
            if isinstance(result, Failure):
                result = {"format": "", "documents": [], "quarantine": [(result.kind, result.detail)]}
            files_read += bool(result["documents"])
            for found in result["documents"]:
                row = _document_row(file, found)
                documents.write(row)
                formats[row["format"]] += 1
                lengths.append(len(row["text"]))
                bytes_kept += row["bytes"]
            for kind, detail in result["quarantine"]:
                quarantine.write(_quarantine_row(file, result["format"], f"{kind}: {detail}"))
                kinds[kind] += 1
            task.advance()
    if not lengths:
        raise _nothing_read(output)
    for network in sorted(networks):
        progress.note(f"files were read without network: {network}")
    return Outcome(
        counts={
            "files_in": len(files),
            "files_read": files_read,
            "files_quarantined": len(files) - files_read,
            "documents_kept": len(lengths),
            "bytes_in": sum(file["bytes"] for file in files),
            "bytes_kept": bytes_kept,
            "network_isolation": ", ".join(sorted(networks)),
            **prefixed("quarantined_", kinds),
        },
        tables=[
            count_table("Documents by format", "format", formats),
            count_table("Quarantined, by reason", "reason", kinds, "files or records"),
            _quarantine_sample(output),
        ],
        plots=[length_histogram("Length of documents as extracted", lengths)],
    )


def _reading(settings: ExtractionSettings) -> Job:
    return Job(
        "forge_pipeline.corpus.extractor:extractor",
        settings.model_dump(mode="json"),
        settings.seconds_per_file,
        settings.worker_memory_bytes,
        isolated=True,
    )


def document_id(source: str, path: str, part: str, text: str) -> str:
    """32 hex digits that name a document by where it is from and what it says."""
    name = f"{source}/{path}{part}\0{text}"
    return hashlib.sha256(name.encode("utf-8")).hexdigest()[:DOC_ID_DIGITS]


def _document_row(file: Mapping[str, Any], found: Mapping[str, str]) -> dict[str, Any]:
    text = found["text"]
    return {
        "doc_id": document_id(file["source"], file["path"], found["part"], text),
        "source": file["source"],
        "path": file["path"],
        "part": found["part"],
        "file_sha256": file["sha256"],
        "format": found["format"],
        "language_hint": found["language_hint"],
        "licence": file["licence"],
        "owner": file["owner"],
        "purpose": file["purpose"],
        "title": found["title"],
        "text": text,
        "bytes": len(text.encode("utf-8")),
        "split_group": file["derived_from"] or file["sha256"],
    }


def _quarantine_row(file: Mapping[str, Any], form: str, reason: str) -> dict[str, Any]:
    return {
        "source": file["source"],
        "path": file["path"],
        "file_sha256": file["sha256"],
        "format": form,
        "bytes": file["bytes"],
        "reason": reason,
    }


def _quarantine_sample(output: Path) -> Table:
    rows = tables.read_table(output, tables.QUARANTINE, ["path", "reason", "bytes"]).slice(0, ROWS).to_pylist()
    return Table.of("Quarantined files (first of them)", rows)


def _nothing_read(output: Path) -> SourceError:
    reasons = [
        f"{row['path']}: {row['reason']}"
        for row in tables.read_table(output, tables.QUARANTINE).slice(0, 3).to_pylist()
    ]
    return SourceError(
        "no file of the batch could be read",
        where="; ".join(reasons),
        fix="see the reasons; add readable documents to the source, or raise the limits under extraction",
    )


@contextmanager
def _local_files(files: Sequence[Mapping[str, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
    """One item a file for the workers; objects in S3 are fetched first, because workers have no network."""
    with tempfile.TemporaryDirectory(prefix="forge-") as folder, ThreadPoolExecutor(_FETCH_THREADS) as pool:
        remote = RemoteFiles()

        def item(numbered: tuple[int, Mapping[str, Any]]) -> dict[str, Any]:
            number, file = numbered
            path = Path(folder) / str(number)
            if file["location"].startswith(S3_SCHEME):
                # Gone since it was landed: the worker will find no file and say so.
                with suppress(FileNotFoundError):
                    remote.fetch(file["location"], path)
            else:
                path = local_path(file["location"])
            return {"path": file["path"], "file": str(path), "sha256": file["sha256"], "bytes": file["bytes"]}

        yield pool.map(item, enumerate(files))
