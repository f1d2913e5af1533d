"""Checkpoints: complete or absent, each with a digest of every file."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forge_pipeline.storage.store import digest_files

MANIFEST_FILE = "manifest.json"
STATE_TAG = "state"
NAME = re.compile(r"step-(\d{8})$")


@dataclass(frozen=True)
class Checkpoint:
    """``step`` optimizer steps are done; the next one to run is ``step``."""

    folder: Path
    step: int


def save(root: Path, step: int, *, rank: int, barrier: Callable[[], None], write: Callable[[Path], None]) -> None:
    """Let every rank ``write`` its part into a folder aside, then publish it with its manifest by one rename."""
    aside = root / f".step-{step:08d}.partial"
    final = root / f"step-{step:08d}"
    if rank == 0:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    barrier()
    write(aside)
    barrier()
    if rank == 0:
        files = [{"path": entry.path, "sha256": entry.sha256} for entry in digest_files(aside)]
        manifest = aside / MANIFEST_FILE
        manifest.write_text(json.dumps({"step": step, "files": files}, indent=1), encoding="utf-8")
        for path in [*aside.rglob("*"), aside]:
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(aside, final)
        _flush(root)
    barrier()


def newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint whose files all match its manifest; damaged ones are passed over."""
    for checkpoint in reversed(published(root)):
        if is_whole(checkpoint):
            return checkpoint
    return None


def published(root: Path) -> list[Checkpoint]:
    """All published checkpoints, oldest first."""
    if not root.is_dir():
        return []
    found = [(NAME.match(path.name), path) for path in sorted(root.iterdir())]
    return [Checkpoint(path, int(match.group(1))) for match, path in found if match]


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether each file of the checkpoint has the digest it was published with."""
    manifest = checkpoint.folder / MANIFEST_FILE
    if not manifest.exists():
        return False
    expected = {entry["path"]: entry["sha256"] for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]}
    actual = {entry.path: entry.sha256 for entry in digest_files(checkpoint.folder) if entry.path != MANIFEST_FILE}
    return expected == actual


def prune(root: Path, keep: int) -> None:
    """Remove all but the ``keep`` newest checkpoints."""
    for checkpoint in published(root)[:-keep]:
        shutil.rmtree(checkpoint.folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
