"""What a hostile file might make a reader do, for `test_workers`: functions that a worker process can load."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def obedient(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda item: _do(item, settings)


def unimportable(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    raise RuntimeError("the model file is missing")


def _do(item: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    match item["do"]:
        case "hang":
            time.sleep(3600)
        case "die":
            os.kill(os.getpid(), 11)
        case "exit":
            os._exit(3)
        case "eat":
            return {"eaten": len(bytearray(64_000_000_000))}
        case "raise":
            raise KeyError("no such thing")
        case "write":
            Path(settings["folder"], "written").write_bytes(bytes(1_000_000))
        case "socket":
            socket.create_connection(("127.0.0.1", settings["port"]), timeout=5)
        case "native socket":
            return {"connected": _connect_natively(settings["port"])}
        case "print":
            os.write(1, b"\0\0\0\0\0\0\0\2{}")
        case "environment":
            return {"environment": sorted(os.environ)}
    return {"done": item["do"]}


def _connect_natively(port: int) -> bool:
    libc = ctypes.CDLL(None)
    descriptor = libc.socket(2, 1, 0)
    address = (2).to_bytes(2, "little") + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    return libc.connect(descriptor, address, len(address)) == 0
