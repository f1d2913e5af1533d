"""The store on a real S3 server: sealed artifacts survive the loss of every local file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import Outcome
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Home, fingerprint_of
from forge_pipeline.storage.remote import connect
from forge_pipeline.storage.store import Origin

KEY = ArtifactKey("corpus", "documents", "0001-abc")
ORIGIN = Origin("1", {}, {}, "2026", 1.0, {})


def test_an_artifact_is_sealed_remotely_and_fetched_by_another_machine(tmp_path: Path, s3_bucket: str) -> None:
    writer = ArtifactStore(Home(tmp_path / "one"), connect(f"s3://{s3_bucket}/forge"))
    output = writer.begin(KEY, fingerprint_of("a"))
    (output / "file.bin").write_bytes(bytes(range(256)) * 50_000)
    sealed = writer.seal(KEY, fingerprint_of("a"), output, ORIGIN, Outcome(counts={"n": 1}))

    reader = ArtifactStore(Home(tmp_path / "two"), connect(f"s3://{s3_bucket}/forge"))
    assert reader.batches("corpus", "documents") == ["0001-abc"]
    assert reader.current(KEY) == sealed
    assert (reader.read(sealed) / "file.bin").read_bytes() == bytes(range(256)) * 50_000
    assert reader.verify(sealed) == []
    assert reader.outcome(sealed).counts == {"n": 1}


def test_an_object_altered_in_the_bucket_is_refused(tmp_path: Path, s3_bucket: str) -> None:
    remote = connect(f"s3://{s3_bucket}/altered")
    store = ArtifactStore(Home(tmp_path / "one"), remote)
    output = store.begin(KEY, fingerprint_of("a"))
    (output / "file.bin").write_bytes(b"true")
    record = store.seal(KEY, fingerprint_of("a"), output, ORIGIN, Outcome())
    shutil.rmtree(tmp_path / "one")
    (name,) = [name for name in remote.names() if name.endswith("file.bin")]
    remote.put_bytes(name, b"fals")
    with pytest.raises(StorageError, match="does not match its record"):
        store.read(record)
    assert not list((tmp_path / "one").rglob("file.bin"))


def test_wrong_credentials_are_one_clear_error(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY"):
        connect(f"s3://{s3_bucket}/forge")
