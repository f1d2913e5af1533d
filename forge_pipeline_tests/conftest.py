"""What all tests share: a home of their own, the offline environment, the program, and a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from forge_pipeline import environment
from forge_pipeline_tests import object_server

CI = os.environ.get("CI") == "true"

# Examples are the same on each run in CI, so that it fails for a change and not by chance. Deadlines would measure
# how busy the machine is.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("ci" if CI else "here")


@pytest.fixture(scope="session", autouse=True)
def forge_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the whole session: no test writes into the checkout's."""
    return environment.prepare(tmp_path_factory.mktemp("home"))


RunForge = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_forge(tmp_path: Path) -> RunForge:
    """`forge` in a process of its own, in an empty folder: `run_forge("doctor", "--json", FORGE_HOME=...)`."""

    def run(*arguments: str, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "forge_pipeline.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            env={**os.environ, **variables},
        )

    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, the system's own, as a Playwright `Browser`."""
    executable = shutil.which("chromium")
    if executable is None:
        message = "chromium is missing (Debian: apt-get install chromium; infra/test does it as root)"
        if CI:
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    # Chromium's own sandbox refuses to work for root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def sandbox_program() -> str:
    """The path of bubblewrap."""
    executable = shutil.which("bwrap")
    if executable is None:
        message = "bwrap is missing (Debian: apt-get install bubblewrap; infra/test does it as root)"
        if CI:
            pytest.fail(message)
        pytest.skip(message)
    return executable


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running S3 server, as the environment variables that reach it."""
    with object_server.serve(tmp_path_factory.mktemp("s3") / "data") as variables:
        yield variables


@pytest.fixture
def s3_bucket(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket that this process's environment reaches."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    object_server.client(s3_server).create_bucket(Bucket=name)
    return name
