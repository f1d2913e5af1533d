"""Work on documents in processes of its own, where one bad document can harm nothing but itself.

A worker is a fresh interpreter (`worker`) that talks over its standard input and output in frames of JSON: never
pickle, because what reads hostile files might answer in their name. A worker that dies or takes too long costs
the item in its hand; the rest of its share goes to the next worker.
"""

from __future__ import annotations

import json
import os
import queue
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from forge_pipeline.errors import MachineError

WORKERS_VARIABLE = "FORGE_WORKERS"
FRAME = struct.Struct(">Q")
# A share is what is sent to a worker at once: enough to hide the exchange, little enough to spread evenly.
SHARE_ITEMS = 64
SHARE_CHARACTERS = 2_000_000
# Finished shares that may wait for an earlier one.
_SHARES_AHEAD = 32
_START_SECONDS = 120.0
# A worker needs a path to find Python's own files, and no secrets.
_KEPT_VARIABLES = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
)


@dataclass(frozen=True)
class Job:
    """What a worker does. ``function`` is "module:name" of a callable that takes ``settings`` and returns the
    callable to apply to each item. ``memory_bytes`` limits its address space. An ``isolated`` worker may not use
    the network nor write files."""

    function: str
    settings: Mapping[str, Any]
    seconds_per_item: float
    memory_bytes: int | None = None
    isolated: bool = False


@dataclass(frozen=True)
class Failure:
    """An item without a result: ``kind`` is "time_limit", "memory_limit", "crash" or, for an exception, "error"."""

    kind: str
    detail: str


@dataclass
class _Share:
    number: int
    items: list[Mapping[str, Any]]


def worker_count() -> int:
    """How many processes to use: FORGE_WORKERS, else the processors this process may use."""
    wanted = os.environ.get(WORKERS_VARIABLE)
    if wanted is None:
        return len(os.sched_getaffinity(0))
    if not wanted.isdigit() or int(wanted) < 1:
        raise MachineError(
            f"{WORKERS_VARIABLE}={wanted!r} is not a number of processes",
            where=f"environment variable {WORKERS_VARIABLE}",
            fix="set a whole number from 1, or unset it",
        )
    return int(wanted)


def run_job(
    job: Job,
    items: Iterable[Mapping[str, Any]],
    workers: int | None = None,
    on_start: Callable[[str], None] | None = None,
) -> Iterator[dict[str, Any] | Failure]:
    """The result of each item, in the order of ``items``, whatever the number of workers.

    Items and results are plain JSON. ``on_start`` hears, from each worker, what keeps it from the network. Raises
    MachineError, with the worker's own words, if none starts.
    """
    team = _Team(job, _shares(items), workers or worker_count(), on_start or (lambda _network: None))
    try:
        yield from team.results()
    finally:
        team.stop()


def _shares(items: Iterable[Mapping[str, Any]]) -> Iterator[_Share]:
    number, share, characters = 0, list[Mapping[str, Any]](), 0
    for item in items:
        share.append(item)
        characters += len(item.get("text", "")) or int(item.get("bytes", 0))
        if len(share) >= SHARE_ITEMS or characters >= SHARE_CHARACTERS:
            yield _Share(number, share)
            number, share, characters = number + 1, [], 0
    if share:
        yield _Share(number, share)


class _Team:
    """Threads that each drive one worker process. Shares are taken in order; results are given in order."""

    def __init__(self, job: Job, shares: Iterator[_Share], workers: int, on_start: Callable[[str], None]) -> None:
        self._job = job
        self._on_start = on_start
        self._shares = shares
        self._lock = threading.Lock()
        self._room = threading.Semaphore(_SHARES_AHEAD + workers)
        self._answers: queue.Queue[tuple[int, list[dict[str, Any] | Failure]] | BaseException | None] = queue.Queue()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._drive, daemon=True) for _ in range(workers)]

    def results(self) -> Iterator[dict[str, Any] | Failure]:
        for thread in self._threads:
            thread.start()
        early: dict[int, list[dict[str, Any] | Failure]] = {}
        wanted, running = 0, len(self._threads)
        while running:
            answer = self._answers.get()
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                running -= 1
                continue
            early[answer[0]] = answer[1]
            while wanted in early:
                yield from early.pop(wanted)
                self._room.release()
                wanted += 1

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            self._room.release()
            if thread.ident is not None:
                thread.join()

    def _next_share(self) -> _Share | None:
        self._room.acquire()
        with self._lock:
            return None if self._stopping.is_set() else next(self._shares, None)

    def _drive(self) -> None:
        worker: _Worker | None = None
        try:
            while (share := self._next_share()) is not None:
                answers: list[dict[str, Any] | Failure] = []
                while len(answers) < len(share.items) and not self._stopping.is_set():
                    worker = worker or _Worker(self._job, self._on_start)
                    # What is left of the share after a failure goes to a new worker.
                    for answer in worker.work(share.items[len(answers) :], self._stopping):
                        answers.append(answer)
                        if isinstance(answer, Failure) and answer.kind != "error":
                            worker.close()
                            worker = None
                            break
                self._answers.put((share.number, answers))
            self._room.release()
            self._answers.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._answers.put(error)
        finally:
            if worker is not None:
                worker.close()


class _Worker:
    """One worker process and the pipe to it."""

    def __init__(self, job: Job, on_start: Callable[[str], None]) -> None:
        self._job = job
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        # The processes are the parallelism: a thread pool in each would only make them wait for each other.
        environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "forge_pipeline.corpus.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )
        self._buffer = bytearray()
        self._ended = False
        self._send(asdict(job))
        greeting = self._receive(time.monotonic() + _START_SECONDS)
        if greeting is None:
            words = self._last_words()
            self.close()
            raise MachineError(
                "a worker process for documents did not start",
                where=f"{sys.executable} -m forge_pipeline.corpus.worker: {words}",
                fix="check the installation (forge doctor) and the free memory",
            )
        on_start(greeting["network"])

    def work(self, items: list[Mapping[str, Any]], stopping: threading.Event) -> Iterator[dict[str, Any] | Failure]:
        """One answer an item; after a Failure other than an error, the process is of no more use."""
        self._send(items)
        for _ in items:
            answer = self._receive(time.monotonic() + self._job.seconds_per_item, stopping)
            if answer is not None:
                yield Failure(**answer["failure"]) if "failure" in answer else answer
            else:
                late = Failure("time_limit", f"more than {self._job.seconds_per_item:g} s")
                yield self._death() if self._ended else late
                return

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._said.close()

    def _death(self) -> Failure:
        code = self._process.wait()
        words = self._last_words()
        if "MemoryError" in words or "memory allocation of" in words or "Cannot allocate memory" in words:
            return Failure("memory_limit", "out of memory")
        return Failure("crash", f"the process ended with signal {-code}" if code < 0 else f"the process ended: {words}")

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no message"

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        data = json.dumps(value).encode()
        # A process that is gone is noticed on the next receive.
        with suppress(BrokenPipeError):
            self._process.stdin.write(FRAME.pack(len(data)) + data)
            self._process.stdin.flush()

    def _receive(self, deadline: float, stopping: threading.Event | None = None) -> dict[str, Any] | None:
        """The next frame, or None if the process ended, ``deadline`` passed or ``stopping`` was set."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while True:
            if len(self._buffer) >= FRAME.size:
                end = FRAME.size + FRAME.unpack_from(self._buffer)[0]
                if len(self._buffer) >= end:
                    frame = bytes(self._buffer[FRAME.size : end])
                    del self._buffer[:end]
                    answer: dict[str, Any] = json.loads(frame)
                    return answer
            left = deadline - time.monotonic()
            if left <= 0 or (stopping is not None and stopping.is_set()):
                return None
            if select.select([descriptor], [], [], min(left, 0.5))[0]:
                data = os.read(descriptor, 1 << 20)
                if not data:
                    self._ended = True
                    return None
                self._buffer += data
