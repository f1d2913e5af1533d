"""The worker process: `python -m forge_pipeline.corpus.worker`. See `workers` for who talks to it.

What confines an isolated worker, and what does not:

- address space (RLIMIT_AS), no core dumps, no file larger than its last words (RLIMIT_FSIZE), 256 descriptors;
- no secrets in its environment;
- a network namespace of its own without interfaces, where the kernel lets us make one. Where it does not, Python's
  socket module refuses, which does not bind native code: the worker's greeting says which of the two holds.
- It may read what its user may read: it is no sandbox against code execution in a native parser. Its answers are
  JSON, checked by who asked.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import IO, Any, NoReturn

FRAME = struct.Struct(">Q")
_LAST_WORDS_BYTES = 65536
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUSER = 0x10000000


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a library prints must not be taken for an answer.
    os.dup2(2, 1)
    job = _receive(requests)
    if job is None:
        return
    function = _load(job["function"])(job["settings"])
    network = _isolate() if job["isolated"] else "open"
    # After the namespaces: new credentials clear it.
    _die_with_parent()
    if job["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_AS, (job["memory_bytes"], job["memory_bytes"]))
    _send(answers, {"network": network})
    while (items := _receive(requests)) is not None:
        for item in items:
            _send(answers, _apply(function, item))


def _apply(function: Callable[[dict[str, Any]], dict[str, Any]], item: dict[str, Any]) -> dict[str, Any]:
    try:
        return function(item)
    except MemoryError:
        gc.collect()
        return {"failure": {"kind": "memory_limit", "detail": "out of memory"}}
    except Exception as error:  # noqa: BLE001 - what hostile input can raise has no end; the stage gets its name
        return {"failure": {"kind": "error", "detail": f"{type(error).__name__}: {error}"[:300]}}


def _load(name: str) -> Callable[[Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    module, _, attribute = name.partition(":")
    loaded: Callable[[Any], Callable[[dict[str, Any]], dict[str, Any]]] = getattr(
        importlib.import_module(module), attribute
    )
    return loaded


def _isolate() -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LAST_WORDS_BYTES, _LAST_WORDS_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    # Alone for a privileged user; together with a user namespace for everybody else, where that is allowed.
    if libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        network = "namespace"
    else:
        network = "socket module refused"
    socket.socket = _NoSocket  # type: ignore[assignment,misc]
    return network


class _NoSocket:
    """Stands for the socket class: a reader has no business with the network."""

    def __init__(self, *_args: object, **_options: object) -> NoReturn:
        raise PermissionError("a worker that reads documents may not use the network")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(FRAME.size)
    if len(head) < FRAME.size:
        return None
    return json.loads(stream.read(FRAME.unpack(head)[0]))


def _send(stream: IO[bytes], value: object) -> None:
    data = json.dumps(value).encode()
    stream.write(FRAME.pack(len(data)) + data)
    stream.flush()


if __name__ == "__main__":
    main()
