"""What lies in a source: a folder, an S3 prefix, or what the running interpreter has."""

from __future__ import annotations

import os
import re
import stat
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from forge_pipeline.corpus.api_pages import write_api_pages
from forge_pipeline.corpus.settings import (
    API_PAGES,
    DISTRIBUTIONS,
    S3_SCHEME,
    STANDARD_LIBRARY,
    LandingSettings,
    SourceSettings,
)
from forge_pipeline.errors import SourceError
from forge_pipeline.storage.remote import RemoteObjects, connect

UNFINISHED = (".part", ".tmp", ".crdownload", ".partial")
FILE_SCHEME = "file://"
_LIBRARY_FILES = ("*.py", "*.pyi", "*.txt", "*.rst", "*.md", "*.html", "*.json", "*.c", "*.h", "*.toml", "*.cfg")
_LIBRARY_LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__"})
_DISTRIBUTION_FILES = ("METADATA", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "README*", "AUTHORS*", "CHANGES*")


@dataclass(frozen=True, order=True)
class LandedFile:
    """A file as its source lists it. ``derived_from`` is the SHA-256 of the file it was made from, if any."""

    source: str
    path: str
    location: str
    bytes: int
    modified_ns: int
    licence: str
    owner: str
    purpose: str
    derived_from: str | None = None


def list_source(source: SourceSettings, settings: LandingSettings, generated: Path) -> Iterator[LandedFile]:
    """The files of one source, in no particular order. ``generated`` is where generated pages are kept.

    Raises SourceError, naming the source and its location, if the location cannot be listed.
    """
    if source.location == STANDARD_LIBRARY:
        yield from _standard_library(source)
    elif source.location == DISTRIBUTIONS:
        yield from _distributions(source)
    elif source.location == API_PAGES:
        folder = generated / source.name
        derived = write_api_pages(folder, settings.api_pages_bytes)
        for path in _files_below(folder, frozenset()):
            name = path.relative_to(folder).as_posix()
            if name in derived and _wanted(source, name):
                yield _landed(source, name, path, derived_from=derived[name])
    elif source.location.startswith(S3_SCHEME):
        yield from _objects(source)
    else:
        folder = _folder(source)
        for path in _files_below(folder, frozenset()):
            name = path.relative_to(folder).as_posix()
            if _wanted(source, name):
                yield _landed(source, name, path)


def is_complete(file: LandedFile, now_ns: int, settle_seconds: float) -> bool:
    """Whether nobody seems to be writing the file any more."""
    settled = settle_seconds == 0 or now_ns - file.modified_ns >= settle_seconds * 1e9
    return settled and not file.path.lower().endswith(UNFINISHED)


def local_path(location: str) -> Path:
    """The path of a landed file that is not in S3."""
    if location.startswith(FILE_SCHEME):
        return Path(os.fsdecode(unquote_to_bytes(location.removeprefix(FILE_SCHEME))))
    return Path(location)


class RemoteFiles:
    """Copies S3 objects to local files, over one connection a bucket. May be used by several threads."""

    def __init__(self) -> None:
        self._buckets: dict[str, RemoteObjects] = {}
        self._lock = threading.Lock()

    def fetch(self, location: str, path: Path) -> None:
        """Write the object at ``location`` to ``path``. Raises FileNotFoundError if there is none."""
        bucket = f"{S3_SCHEME}{urlsplit(location).netloc}"
        with self._lock:
            if bucket not in self._buckets:
                self._buckets[bucket] = connect(bucket)
            remote = self._buckets[bucket]
        name = location.removeprefix(f"{bucket}/")
        try:
            remote.get_file(name, path)
        except remote.client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise FileNotFoundError(location) from error
            raise SourceError(
                f"cannot read an object: {error}", where=location, fix="check the permissions of the bucket"
            ) from error


def _folder(source: SourceSettings) -> Path:
    expanded = os.path.expandvars(source.location)
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset:
        raise SourceError(
            f"the source {source.name!r} needs the environment variable {unset[1]}, which is not set",
            where=f"location: {source.location}",
            fix=f"set {unset[1]}, or write the path itself",
        )
    folder = Path(expanded).expanduser().resolve()
    if not folder.is_dir():
        raise SourceError(
            f"the source {source.name!r} is not a folder" if folder.exists() else f"no source {source.name!r}: missing",
            where=str(folder),
            fix="create the folder, or correct the source's location in the recipe",
        )
    return folder


def _files_below(root: Path, left_out: frozenset[str]) -> Iterator[Path]:
    """Regular files below ``root``. Linked folders are not entered; a linked file counts if it lies below too."""

    def refuse(error: OSError) -> None:
        raise SourceError(
            f"cannot list a folder: {error.strerror}", where=str(error.filename), fix="grant read access to it"
        ) from error

    real_root = root.resolve()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in left_out)
        for name in sorted(files):
            path = Path(folder) / name
            if name.startswith(".") or (path.is_symlink() and not _leads_below(path, real_root)):
                continue
            yield path


def _leads_below(link: Path, real_root: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(real_root)
    except (OSError, RuntimeError):
        return False


def _wanted(source: SourceSettings, path: str, default: tuple[str, ...] = ()) -> bool:
    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(path, pattern) or fnmatch(path.rpartition("/")[2], pattern) for pattern in patterns)

    include = source.include or default
    return (not include or matches(include)) and not matches(source.exclude)


def _landed(
    source: SourceSettings, name: str, path: Path, *, licence: str | None = None, derived_from: str | None = None
) -> LandedFile:
    try:
        status = path.stat()
    except FileNotFoundError:
        # Gone since it was listed: the next scan will not see it. Until then it has no size that fits.
        status = os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    location = str(path)
    try:
        location.encode()
    except UnicodeEncodeError:
        # A file name that is not valid UTF-8 has no place in a table; its URI has.
        location, name = path.as_uri(), os.fsencode(name).decode("utf-8", errors="backslashreplace")
    return LandedFile(
        source=source.name,
        path=name,
        location=location,
        bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        licence=licence or source.licence,
        owner=source.owner,
        purpose=source.purpose,
        derived_from=derived_from,
    )


def _standard_library(source: SourceSettings) -> Iterator[LandedFile]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in _files_below(library, _LIBRARY_LEFT_OUT):
        name = path.relative_to(library).as_posix()
        if _wanted(source, name, _LIBRARY_FILES):
            yield _landed(source, name, path)


def _distributions(source: SourceSettings) -> Iterator[LandedFile]:
    for site in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for folder in sorted(Path(site).glob("*.dist-info")):
            licence = _declared_licence(folder) if source.licence == "declared" else None
            for path in _files_below(folder, frozenset()):
                name = path.relative_to(site).as_posix()
                if _wanted(source, name, _DISTRIBUTION_FILES):
                    yield _landed(source, name, path, licence=licence)


def _declared_licence(folder: Path) -> str:
    metadata = Distribution.at(folder).metadata
    for field in ("License-Expression", "License"):
        value = next(iter(metadata.get_all(field) or ()), "")
        if value and "\n" not in value and len(value) <= 100:
            return str(value)
    classifiers = [value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier") or () if "License" in value]
    return ", ".join(sorted(classifiers)) or "unknown"


def _objects(source: SourceSettings) -> Iterator[LandedFile]:
    remote = connect(source.location)
    for entry in remote.listing("/" if remote.prefix else ""):
        name = entry["Key"].lstrip("/")
        if name and not any(part.startswith(".") for part in name.split("/")) and _wanted(source, name):
            yield LandedFile(
                source=source.name,
                path=name,
                location=f"{remote}/{name}" if remote.prefix else f"{S3_SCHEME}{remote.bucket}/{name}",
                bytes=entry["Size"],
                modified_ns=int(entry["LastModified"].timestamp() * 1e9),
                licence=source.licence,
                owner=source.owner,
                purpose=source.purpose,
            )
