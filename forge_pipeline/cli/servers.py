"""Servers as child process groups: started, waited for, and stopped without leaving anything behind."""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from forge_pipeline.errors import MachineError

PR_SET_PDEATHSIG = 1
# What a server gets, in seconds, to end by itself after each signal.
INTERRUPT_PATIENCE = 20.0
TERMINATE_PATIENCE = 5.0
LOG_LINES_SHOWN = 15


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free_port(host: str, port: int, *, what: str, option: str) -> None:
    """Raises MachineError, naming the port, who has it and how to choose another, if it cannot be bound."""
    with socket.socket() as probe:
        # As servers do: without it, connections of an earlier one that are still closing would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise MachineError(
                f"port {port} for {what} cannot be used: {error.strerror}{_holder_of(port)}",
                where=f"{host}:{port}",
                fix=f"stop what uses it, or choose another with {option} (0: any that is free)",
            ) from error


def _holder_of(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" (by process {connection.pid}, {psutil.Process(connection.pid).name()})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        # Only said to be helpful; others' processes may not be looked at.
        return ""
    return ""


@dataclass
class Server:
    """One server: how it is started, and the address at which it answers."""

    name: str
    command: Sequence[str]
    address: str
    health_path: str
    log: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only us; it ends when we are killed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def require_running(self) -> None:
        """Raises MachineError, with its last lines, if it has ended."""
        assert self.process is not None
        status = self.process.poll()
        if status is not None:
            raise MachineError(
                f"{self.name} ended with status {status}:\n{self._last_lines()}",
                where=str(self.log),
                fix="see the log; `forge doctor` checks the machine",
            )

    def answers(self) -> bool:
        """Whether it answers now. Raises MachineError if it has ended."""
        self.require_running()
        try:
            with urllib.request.urlopen(self.address + self.health_path, timeout=2) as response:
                return bool(response.status == http.HTTPStatus.OK)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError):
            return False

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])


def wait_until_all_answer(servers: Sequence[Server], seconds: float) -> None:
    """Raises MachineError if one ends or does not answer in time."""
    deadline = time.monotonic() + seconds
    waiting = list(servers)
    while waiting:
        waiting = [server for server in waiting if not server.answers()]
        if waiting and time.monotonic() > deadline:
            raise MachineError(
                f"{waiting[0].name} did not answer within {seconds:.0f} s",
                where=str(waiting[0].log),
                fix="see the log; on a slow machine give it longer with --timeout",
            )
        time.sleep(0.2)


def stop_all(servers: Sequence[Server]) -> None:
    """End every server and all that it started: asked by SIGINT first, then by SIGTERM, at last by SIGKILL."""
    running = [server.process for server in servers if server.process is not None]
    family = [member for process in running for member in _family_of(process.pid)]
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    # Only the servers are asked at first: they end their own children in the right order.
    _, alive = psutil.wait_procs(family, timeout=INTERRUPT_PATIENCE)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        # Looked up again: something may have been started in the meantime.
        alive = list({*alive, *(member for process in running for member in _group_of(process.pid))})
        for member in alive:
            try:
                member.send_signal(signal_number)
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(alive, timeout=TERMINATE_PATIENCE)
    for process in running:
        process.wait(timeout=TERMINATE_PATIENCE)


def _family_of(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _group_of(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def _end_with_parent() -> None:
    """Between fork and exec: have the kernel send SIGTERM when our parent dies, however it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
