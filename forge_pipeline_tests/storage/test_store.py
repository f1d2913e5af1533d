"""An artifact is sealed whole or not at all, never changes, and is found by how it was made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import Check, Outcome, Plot, Table
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Home, Record, fingerprint_of
from forge_pipeline.storage.store import Origin

KEY = ArtifactKey("corpus", "documents", "0001-abc")
ORIGIN = Origin(
    "1", {"rate": 0.1}, {"landing": ((ArtifactKey("corpus", "landing"), "f" * 64),)}, "2026", 1.5, {"a": "1"}
)
OUTCOME = Outcome(
    counts={"documents": 2},
    checks=[Check("whole", True, "all there", 1.0, 0.5)],
    tables=[Table.of("By format", [{"format": "text", "n": 2}])],
    plots=[Plot("Length", "line", "x", "y", {"all": ([1, 2], [3.0, 4.0])})],
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(Home(tmp_path))


def seal(store: ArtifactStore, fingerprint: str, text: str = "hello") -> Record:
    output = store.begin(KEY, fingerprint)
    (output / "inner").mkdir()
    (output / "inner" / "file.txt").write_text(text)
    return store.seal(KEY, fingerprint, output, ORIGIN, OUTCOME)


def test_a_sealed_artifact_is_found_read_and_reported_as_it_was_written(store: ArtifactStore) -> None:
    fingerprint = fingerprint_of("a")
    assert store.find(KEY, fingerprint) is None
    record = seal(store, fingerprint)
    assert store.find(KEY, fingerprint) == record == store.current(KEY)
    assert (store.read(record) / "inner" / "file.txt").read_text() == "hello"
    assert store.outcome(record) == OUTCOME
    assert store.batches("corpus", "documents") == ["0001-abc"]
    assert store.verify(record) == []


def test_the_first_to_seal_a_fingerprint_wins(store: ArtifactStore) -> None:
    fingerprint = fingerprint_of("a")
    first = seal(store, fingerprint)
    assert seal(store, fingerprint, "another") == first
    assert (store.read(first) / "inner" / "file.txt").read_text() == "hello"


def test_the_content_digest_names_the_files_and_not_the_report(store: ArtifactStore) -> None:
    same, again, other = (seal(store, fingerprint_of(n), text) for n, text in ((1, "x"), (2, "x"), (3, "y")))
    assert same.content == again.content != other.content


@pytest.mark.parametrize("change", ["alter", "remove", "add"])
def test_any_change_to_a_sealed_file_is_found(store: ArtifactStore, change: str) -> None:
    record = seal(store, fingerprint_of("a"))
    file = store.read(record) / "inner" / "file.txt"
    if change == "alter":
        file.write_text("hellO")
    elif change == "remove":
        file.unlink()
    else:
        file.with_name("other.txt").write_text("")
    (problem,) = store.verify(record)
    assert "file.txt" in problem or "other.txt" in problem


def test_a_damaged_record_is_refused_with_its_place(store: ArtifactStore) -> None:
    record = seal(store, fingerprint_of("a"))
    path = store.read(record) / "record.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(StorageError, match=r"record\.json"):
        store.find(KEY, record.fingerprint)


def test_an_artifact_moved_to_another_fingerprint_is_refused(store: ArtifactStore) -> None:
    record = seal(store, fingerprint_of("a"))
    folder = store.read(record)
    folder.rename(folder.with_name(fingerprint_of("b")[:16]))
    with pytest.raises(StorageError, match="moved or altered"):
        store.find(KEY, fingerprint_of("b"))


SEALER = """
import sys
from pathlib import Path
from forge_pipeline.reporting import Outcome
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Home
from forge_pipeline.storage.store import Origin
store = ArtifactStore(Home(Path(sys.argv[1])))
print("ready", flush=True)
for number in range(10_000):
    key, fingerprint = ArtifactKey("corpus", "documents", f"{number:05d}"), f"{number:064d}"
    output = store.begin(key, fingerprint)
    for name in range(5):
        (output / f"{name}.bin").write_bytes(bytes(20_000))
    store.seal(key, fingerprint, output, Origin("1", {}, {}, "", 0.0, {}), Outcome())
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_artifacts(tmp_path: Path) -> None:
    for attempt in range(5):
        home = tmp_path / str(attempt)
        writer = subprocess.Popen([sys.executable, "-c", SEALER, str(home)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05 + 0.03 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        store = ArtifactStore(Home(home))
        for batch in store.batches("corpus", "documents"):
            record = store.current(ArtifactKey("corpus", "documents", batch))
            assert record is not None
            assert store.verify(record) == []
