"""Documents in an S3 bucket land and are read like those in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.extraction import extract_documents
from forge_pipeline.corpus.landing import register_batch, scan
from forge_pipeline.corpus.settings import ExtractionSettings, LandingSettings, SourceSettings
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.storage.remote import connect

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("prefix", ["", "/team/notes"])
def test_objects_are_landed_and_read(prefix: str, s3_bucket: str, tmp_path: Path, output: Callable[[], Path]) -> None:
    bucket = connect(f"s3://{s3_bucket}")
    objects = {
        "a.txt": b"First note.\n",
        "sub/b.md": b"# Second\n\nNote.\n",
        ".hidden": b"x",
        "c.part": b"x",
        "e.txt": b"Fifth.\n",
    }
    for name, data in objects.items():
        bucket.put_bytes(f"{prefix}/{name}".lstrip("/"), data)
    bucket.put_bytes(f"{prefix}-elsewhere/d.txt".lstrip("/") if prefix else ".git/d.txt", b"not of this source")
    source = SourceSettings(name="notes", location=f"s3://{s3_bucket}{prefix}")
    settings = LandingSettings(sources=(source,), settle_seconds=0)
    batch = register_batch(settings, scan(settings, None, tmp_path), None, [], SilentProgress())
    assert batch is not None
    assert batch.files["path"].to_pylist() == ["a.txt", "e.txt", "sub/b.md"]
    assert batch.files["location"].to_pylist()[0] == f"s3://{s3_bucket}{prefix}/a.txt"
    assert scan(settings, batch.files, tmp_path) == []

    bucket.put_bytes(f"{prefix}/e.txt".lstrip("/"), b"Changed since.\n")
    landing, out = output(), output()
    pq.write_table(batch.files, landing / tables.FILES)
    extract_documents(ExtractionSettings(), landing, out, SilentProgress(), workers=1)
    assert tables.column(tables.read_table(out, tables.DOCUMENTS), "text") == ["First note.\n", "# Second\n\nNote.\n"]
    (quarantined,) = tables.read_table(out, tables.QUARANTINE).to_pylist()
    assert (quarantined["path"], quarantined["reason"].split(":")[0]) == ("e.txt", "changed")
