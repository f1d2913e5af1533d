"""The list of a package's files with their SHA-256, in the format of `sha256sum`: `sha256sum -c SHA256SUMS`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from forge_pipeline.errors import StorageError

MANIFEST_FILE = "SHA256SUMS"


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> str:
    """Write `SHA256SUMS` over all other files of ``folder``; returns the package's digest (that of the list)."""
    lines = [f"{digest_of(folder / name)}  {name}\n" for name in _names(folder)]
    (folder / MANIFEST_FILE).write_text("".join(lines), encoding="utf-8")
    return digest_of(folder / MANIFEST_FILE)


def verify_manifest(folder: Path) -> str:
    """Recompute every digest; returns the package's digest.

    Raises StorageError, naming the first such file, if one is missing, altered or not listed.
    """
    path = folder / MANIFEST_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        listed = {line[66:]: line[:64] for line in lines}
    except OSError as error:
        raise StorageError(
            f"cannot read the package's list of files: {error.strerror}",
            where=str(path),
            fix="give the `model` folder of a model_package artifact",
        ) from error
    present = _names(folder)
    for name in sorted(set(listed) | set(present)):
        if name not in listed:
            problem = "is not in the package's list of files"
        elif name not in present:
            problem = "is missing from the package"
        elif digest_of(folder / name) != listed[name]:
            problem = "was altered after packaging"
        else:
            continue
        raise StorageError(
            f"{name} {problem}", where=str(folder), fix="remove the artifact's folder and run model_package again"
        )
    return digest_of(path)


def _names(folder: Path) -> list[str]:
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name != MANIFEST_FILE)
