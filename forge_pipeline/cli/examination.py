"""What `forge doctor` looks at: one finding for each thing that the system needs from the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from forge_pipeline.environment import CHECKOUT

GIB = 1024**3
# Below the first a quick run is not possible, below the second it is tight.
DISK_GIB = (2.0, 10.0)
MEMORY_GIB = (4.0, 8.0)
DEFAULT_PORTS = {"dagster": 3000, "mlflow": 5000}
PROBE_SECONDS = 20

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """``problem``: it will not work; ``warning``: something will not. ``fix`` is empty when nothing is to be done."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def examine(home: Path) -> list[Finding]:
    """All findings, in the order in which people ask."""
    examinations: list[Callable[[], Finding]] = [
        _python,
        _cores,
        _memory,
        lambda: _home(home),
        lambda: _disk(home),
        _packages,
        _gpu,
        _bubblewrap,
        _chromium,
    ]
    findings = [examination() for examination in examinations]
    return findings + [_port(name, port) for name, port in DEFAULT_PORTS.items()]


def _python() -> Finding:
    release = platform.python_version()
    detail = f"{release} at {sys.executable}"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", "ok", detail)
    return Finding("python", "problem", detail, "set FORGE_PYTHON to a Python 3.11 or 3.12 and run infra/run again")


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0))
    if usable >= 2:
        return Finding("cores", "ok", f"{usable} usable")
    return Finding(
        "cores", "warning", f"{usable} usable", "the quick recipe's times are for 2 cores: expect twice as long"
    )


def memory_limit() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's if that is less."""
    total = int(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file():
        text = limit.read_text(encoding="ascii").strip()
        if text != "max":
            return min(total, int(text))
    return total


def _memory() -> Finding:
    total, available = memory_limit() / GIB, psutil.virtual_memory().available / GIB
    detail = f"{total:.1f} GiB, {min(total, available):.1f} GiB of it available"
    least, comfortable = MEMORY_GIB
    if min(total, available) < least:
        return Finding("memory", "problem", detail, f"the quick recipe needs about {least:.0f} GiB: end other programs")
    if min(total, available) < comfortable:
        return Finding("memory", "warning", detail, "choose smaller micro-batches if training runs out of memory")
    return Finding("memory", "ok", detail)


def _home(home: Path) -> Finding:
    existing = _nearest_existing(home)
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Finding("home", "ok", str(home))
    return Finding(
        "home", "problem", f"{home}: {existing} cannot be written", "give another folder with --home or FORGE_HOME"
    )


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(_nearest_existing(home)).free / GIB
    detail = f"{free:.1f} GiB free for {home}"
    least, comfortable = DISK_GIB
    if free < least:
        return Finding("disk", "problem", detail, f"free {least:.0f} GiB, or give a folder on another disk with --home")
    if free < comfortable:
        return Finding("disk", "warning", detail, "enough for the quick recipe; a larger corpus needs more")
    return Finding("disk", "ok", detail)


def _nearest_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def pinned_versions() -> dict[str, str]:
    """What infra/constraints.txt says, by normalised project name."""
    lines = (CHECKOUT / "infra" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_normalised(name): version.strip() for name, version in pins}


def installed_versions() -> dict[str, str]:
    return {_normalised(item.name): item.version for item in importlib.metadata.distributions()}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required_projects() -> Iterator[str]:
    for requirement in importlib.metadata.requires("forge-pipeline") or []:
        if "extra ==" not in requirement:
            matched = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert matched is not None
            yield _normalised(matched[0])


def _packages() -> Finding:
    pins, installed = pinned_versions(), installed_versions()
    fix = "run infra/run again: it installs what is pinned"
    missing = sorted(name for name in _required_projects() if name not in installed)
    if missing:
        return Finding("packages", "problem", f"not installed: {', '.join(missing)}", fix)
    # The part after + names a build of the same release.
    others = [
        f"{name} {version} (pinned {pins[name]})"
        for name, version in sorted(installed.items())
        if name in pins and version.split("+")[0] != pins[name]
    ]
    if others:
        return Finding("packages", "warning", f"not as pinned: {', '.join(others)}", fix)
    return Finding("packages", "ok", f"{sum(name in pins for name in installed)} as pinned")


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "ok", "none: training uses the cores")
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=PROBE_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        return Finding("gpu", "warning", f"nvidia-smi fails: {error}", "check the driver; training uses the cores")
    names = "; ".join(answer.stdout.strip().splitlines())
    torch_version = installed_versions().get("torch", "")
    if torch_version.endswith("+cpu"):
        return Finding(
            "gpu", "warning", f"{names}, but torch {torch_version} has no CUDA", "install a torch built for CUDA"
        )
    return Finding("gpu", "ok", names)


def _bubblewrap() -> Finding:
    path = shutil.which("bwrap")
    fix = "install bubblewrap (Debian: apt-get install bubblewrap)"
    if path is None:
        return Finding("sandbox", "warning", "bwrap is missing: code from models cannot be run in a sandbox", fix)
    probe = [path, "--unshare-all", "--ro-bind", "/", "/", "true"]
    try:
        answer = subprocess.run(probe, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except (subprocess.SubprocessError, OSError) as error:
        return Finding("sandbox", "warning", f"{path} does not run: {error}", fix)
    if answer.returncode:
        why = answer.stderr.strip()
        return Finding(
            "sandbox", "warning", f"{path}: {why}", "let unprivileged users make namespaces (see the message)"
        )
    return Finding("sandbox", "ok", path)


def _chromium() -> Finding:
    path = shutil.which("chromium")
    if path is None:
        fix = "install chromium (Debian: apt-get install chromium)"
        return Finding("browser", "warning", "chromium is missing: only the tests of the pages need it", fix)
    return Finding("browser", "ok", path)


def _port(name: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            fix = f"give another to forge ui: --{name}-port 0 takes any that is free"
            return Finding(f"{name} port", "warning", f"{port}: {error.strerror}", fix)
    return Finding(f"{name} port", "ok", f"{port} is free")
