"""The proof that nobody else trains on this machine's accelerator."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forge_pipeline.errors import MachineError


@contextmanager
def lease(path: Path, wait_seconds: float) -> Iterator[int]:
    """Hold the lock file at ``path``; yields its descriptor, to be inherited by the training processes.

    The lock belongs to the open file, not to one process: it is free only once the launcher and every training
    process that inherited it are gone, whichever way they went. Raises MachineError after ``wait_seconds``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, path, wait_seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "unknown"
                raise MachineError(
                    f"another training, started by process {holder}, holds the accelerator",
                    where=str(path),
                    fix="wait for it to end or cancel it, then run again",
                ) from None
            time.sleep(0.2)
