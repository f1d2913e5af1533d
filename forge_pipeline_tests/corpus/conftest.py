"""Folders of documents, and the stages run over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.extraction import document_id
from forge_pipeline.corpus.landing import register_batch, scan
from forge_pipeline.corpus.settings import LandingSettings, SourceSettings
from forge_pipeline.reporting import SilentProgress


@pytest.fixture
def land(tmp_path: Path) -> Callable[[Mapping[str, bytes | str]], Path]:
    """Write files into a folder and register them as one batch; returns the batch's artifact folder."""

    def land_files(files: Mapping[str, bytes | str]) -> Path:
        folder = tmp_path / "source"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        settings = LandingSettings(sources=(SourceSettings(name="source", location=str(folder)),), settle_seconds=0)
        new = scan(settings, None, tmp_path / "generated")
        batch = register_batch(settings, new, None, [], SilentProgress())
        assert batch is not None
        landing = tmp_path / "landing"
        landing.mkdir()
        pq.write_table(batch.files, landing / tables.FILES)
        return landing

    return land_files


@pytest.fixture
def part(tmp_path: Path) -> Callable[..., Path]:
    """Write documents, given as texts or as rows, as a sealed part would hold them (every column is there)."""
    made: list[Path] = []

    def write_part(documents: Sequence[str | Mapping[str, Any]], *, kept: bool = False) -> Path:
        folder = tmp_path / f"part{len(made)}"
        folder.mkdir()
        made.append(folder)
        rows = []
        for place, given in enumerate(documents):
            fields = {"text": given} if isinstance(given, str) else dict(given)
            path = fields.get("path", f"{len(made)}-{place}.txt")
            row = {
                "doc_id": document_id("source", path, "", fields["text"]),
                "source": "source",
                "path": path,
                "part": "",
                "file_sha256": "0" * 64,
                "format": "text",
                "language_hint": "",
                "licence": "unknown",
                "owner": "unknown",
                "purpose": "training",
                "title": "",
                "bytes": len(fields["text"].encode()),
                "language": "en",
                "language_confidence": 1.0,
                **fields,
            }
            row.setdefault("split_group", row["doc_id"])
            rows.append(row)
        tables.write_table(folder / tables.DOCUMENTS, tables.CURATED_SCHEMA, rows)
        if kept:
            members = [
                {"doc_id": r["doc_id"], "path": r["path"], "cluster_id": r["doc_id"], "kept": True, "kind": "unique"}
                for r in rows
            ]
            tables.write_table(folder / tables.MEMBERSHIP, tables.MEMBERSHIP_SCHEMA, members)
        return folder

    return write_part


@pytest.fixture
def output(tmp_path: Path) -> Callable[[], Path]:
    """A new empty folder at each call."""
    made: list[Path] = []

    def new_output() -> Path:
        folder = tmp_path / f"output{len(made)}"
        folder.mkdir()
        made.append(folder)
        return folder

    return new_output
