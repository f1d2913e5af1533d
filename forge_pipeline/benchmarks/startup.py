"""How long people wait before anything happens."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from forge_pipeline.benchmarks.registry import Figure
from forge_pipeline.environment import CHECKOUT
from forge_pipeline.reporting import Progress

REPEATS = 5
SETUP_CHECK = f'source "{CHECKOUT}/infra/environment.sh" && prepare_environment run'
PYTHON = (sys.executable, "-P")
IMPORT_DEFINITIONS = "import_definitions"
# The command of each start, and how many seconds it may take.
STARTS: dict[str, tuple[Sequence[str], float]] = {
    "forge_help": ((*PYTHON, "-m", "forge_pipeline.cli.main", "--help"), 0.3),
    IMPORT_DEFINITIONS: ((*PYTHON, "-c", "import forge_pipeline.definitions"), 3.0),
    "repeated_set_up": (("bash", "-c", SETUP_CHECK), 0.2),
}


def startup(work: Path, progress: Progress) -> list[Figure]:
    return time_starts(tuple(STARTS), work, progress)


def time_starts(names: Sequence[str], work: Path, progress: Progress) -> list[Figure]:
    """Median wall seconds of a fresh process, after one that warmed the caches."""
    figures = []
    with progress.task("starting programs", total=len(names) * (REPEATS + 1), unit="starts") as task:
        for name in names:
            command, limit = STARTS[name]
            seconds = []
            for _ in range(REPEATS + 1):
                seconds.append(_seconds(command, work))
                task.advance()
            figures.append(Figure.at_most(name, statistics.median(seconds[1:]), "s", limit))
    return figures


def _seconds(command: Sequence[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
