"""New files become batches; what is known, unfinished or out of bounds does not."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from forge_pipeline.corpus.api_pages import write_api_pages
from forge_pipeline.corpus.landing import Batch, register_batch, scan
from forge_pipeline.corpus.settings import DISTRIBUTIONS, STANDARD_LIBRARY, LandingSettings, SourceSettings
from forge_pipeline.corpus.sources import local_path
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import SilentProgress


def _settings(
    folder: Path | str, *, max_batch_bytes: int = 10**9, settle: float = 0, **source: object
) -> LandingSettings:
    one = SourceSettings.model_validate({"name": "notes", "location": str(folder), **source})
    return LandingSettings(sources=(one,), settle_seconds=settle, max_batch_bytes=max_batch_bytes)


def _register(settings: LandingSettings, known: pa.Table | None, batches: list[str], tmp_path: Path) -> Batch | None:
    new = scan(settings, known, tmp_path / "generated")
    return register_batch(settings, new, known, batches, SilentProgress())


def _paths(settings: LandingSettings, tmp_path: Path) -> list[str]:
    return [file.path for file in scan(settings, None, tmp_path / "generated")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "b.txt").write_text("two")
    (tmp_path / "in" / "a.txt").write_text("one")
    (tmp_path / "in" / "sub" / "c.md").write_text("three")
    return tmp_path / "in"


def test_the_first_batch_lists_every_file_in_order(folder: Path, tmp_path: Path) -> None:
    batch = _register(_settings(folder, licence="CC0", owner="Ada"), None, [], tmp_path)
    assert batch is not None
    rows = batch.files.to_pylist()
    assert [row["path"] for row in rows] == ["a.txt", "b.txt", "sub/c.md"]
    assert [row["bytes"] for row in rows] == [3, 3, 5]
    assert {(row["source"], row["licence"], row["owner"], row["derived_from"]) for row in rows} == {
        ("notes", "CC0", "Ada", None)
    }
    assert batch.name.startswith("0001-")


def test_the_same_files_elsewhere_make_a_batch_of_the_same_name(folder: Path, tmp_path: Path) -> None:
    first = _register(_settings(folder), None, [], tmp_path)
    folder.rename(tmp_path / "moved")
    second = _register(_settings(tmp_path / "moved"), None, [], tmp_path)
    assert first is not None
    assert second is not None
    assert first.name == second.name


def test_only_new_content_makes_a_new_batch(folder: Path, tmp_path: Path) -> None:
    settings = _settings(folder)
    first = _register(settings, None, [], tmp_path)
    assert first is not None
    assert _register(settings, first.files, [first.name], tmp_path) is None
    os.utime(folder / "a.txt")
    assert _register(settings, first.files, [first.name], tmp_path) is None
    (folder / "a.txt").write_text("changed")
    (folder / "d.txt").write_text("new")
    second = _register(settings, first.files, [first.name], tmp_path)
    assert second is not None
    assert second.files["path"].to_pylist() == ["a.txt", "d.txt"]
    assert second.name.startswith("0002-")


def test_a_full_batch_leaves_the_rest_waiting(folder: Path, tmp_path: Path) -> None:
    settings = _settings(folder, max_batch_bytes=6)
    first = _register(settings, None, [], tmp_path)
    assert first is not None
    assert (first.files["path"].to_pylist(), first.waiting) == (["a.txt", "b.txt"], 1)
    second = _register(settings, first.files, [first.name], tmp_path)
    assert second is not None
    assert (second.files["path"].to_pylist(), second.waiting) == (["sub/c.md"], 0)


def test_hidden_unfinished_and_fresh_files_wait(folder: Path, tmp_path: Path) -> None:
    for name in (".hidden", "d.part", "e.tmp", "fresh.txt"):
        (folder / name).write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    old = time.time() - 60
    for name in (".hidden", "d.part", "e.tmp", "a.txt", "b.txt", "sub/c.md"):
        os.utime(folder / name, (old, old))
    assert _paths(_settings(folder, settle=30), tmp_path) == ["a.txt", "b.txt", "sub/c.md"]


def test_links_lead_nowhere_outside(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "escape.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "inside.txt").symlink_to(folder / "a.txt")
    (folder / "dangling.txt").symlink_to(folder / "none")
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "outside").symlink_to(tmp_path)
    assert _paths(_settings(folder), tmp_path) == ["a.txt", "b.txt", "inside.txt", "sub/c.md"]


def test_patterns_choose_by_name_or_path(folder: Path, tmp_path: Path) -> None:
    assert _paths(_settings(folder, include=["*.md", "a.*"]), tmp_path) == ["a.txt", "sub/c.md"]
    assert _paths(_settings(folder, exclude=["sub/*"]), tmp_path) == ["a.txt", "b.txt"]


def test_a_name_that_is_not_utf8_is_landed_all_the_same(folder: Path, tmp_path: Path) -> None:
    path = os.fsencode(folder) + b"/caf\xe9.txt"
    with open(path, "wb") as file:  # noqa: PTH123 - the name is bytes
        file.write(b"coffee")
    batch = _register(_settings(folder), None, [], tmp_path)
    assert batch is not None
    row = next(row for row in batch.files.to_pylist() if row["path"].startswith("caf"))
    assert row["path"] == "caf\\xe9.txt"
    assert local_path(row["location"]).read_bytes() == b"coffee"


def test_variables_in_a_location_are_filled_in(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES_HOME", str(folder.parent))
    assert len(_paths(_settings("$NOTES_HOME/in"), tmp_path)) == 3
    monkeypatch.delenv("NOTES_HOME")
    with pytest.raises(SourceError, match="NOTES_HOME"):
        _paths(_settings("$NOTES_HOME/in"), tmp_path)


def test_a_missing_folder_is_named_with_its_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        _paths(_settings(tmp_path / "none"), tmp_path)
    assert "notes" in caught.value.problem
    assert caught.value.where == str(tmp_path / "none")
    assert caught.value.fix


def test_an_empty_corpus_is_an_error_only_at_first(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match="empty"):
        _register(_settings(tmp_path / "in"), None, [], tmp_path)
    assert _register(_settings(tmp_path / "in"), None, ["0001-00000000"], tmp_path) is None


@pytest.mark.parametrize(
    "source",
    [
        {"location": "python:everything"},
        {"location": "s3://"},
        {"location": "x", "licence": "declared"},
        {"location": "x", "name": "Not a name"},
        {"location": "x", "colour": "red"},
    ],
)
def test_a_source_that_makes_no_sense_is_refused(source: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SourceSettings.model_validate({"name": "notes", **source})


def test_the_interpreter_has_a_library_and_distributions(tmp_path: Path) -> None:
    library = {file.path: file for file in scan(_settings(STANDARD_LIBRARY), None, tmp_path)}
    assert "json/decoder.py" in library
    assert not [path for path in library if "site-packages" in path or "__pycache__" in path or path.endswith(".so")]
    declared = scan(_settings(DISTRIBUTIONS, licence="declared"), None, tmp_path)
    licences = {file.path.split(".dist-info")[0].rsplit("-", 1)[0]: file.licence for file in declared}
    assert licences["pytest"] == "MIT"


def test_api_pages_have_the_same_bytes_again_and_know_their_source(tmp_path: Path) -> None:
    imported = set(sys.modules)
    first = write_api_pages(tmp_path / "one", 60_000)
    second = write_api_pages(tmp_path / "two", 60_000)
    assert set(sys.modules) == imported
    assert first == second
    assert {Path(name).suffix for name in first} == {".html", ".jsonl"}
    pages = {name: (tmp_path / "one" / name).read_bytes() for name in first}
    assert pages == {name: (tmp_path / "two" / name).read_bytes() for name in first}
    assert 60_000 <= sum(map(len, pages.values())) < 400_000
    library = {file.path: file for file in scan(_settings(STANDARD_LIBRARY), None, tmp_path)}
    page = next(name for name in sorted(first) if f"{Path(name).stem.replace('.', '/')}.py" in library)
    described = library[f"{Path(page).stem.replace('.', '/')}.py"]
    assert first[page] == hashlib.sha256(Path(described.location).read_bytes()).hexdigest()


def test_api_pages_that_are_no_longer_made_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    many = write_api_pages(folder, 60_000)
    few = write_api_pages(folder, 10_000)
    assert set(few) < set(many)
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == set(few)
