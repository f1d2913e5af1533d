"""What Dagster costs: the same lineage run bare and through Dagster, and run again when nothing is left to do."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forge_pipeline.benchmarks.registry import Figure
from forge_pipeline.benchmarks.timed_run import BARE, DAGSTER
from forge_pipeline.environment import DAGSTER_CONFIG_VARIABLE, MLFLOW_VARIABLE
from forge_pipeline.errors import ForgeError
from forge_pipeline.lineage.recipes import RECIPES_VARIABLE, SOURCES_VARIABLE
from forge_pipeline.reporting import Progress
from forge_pipeline.storage.home import HOME_VARIABLE
from forge_pipeline.storage.store import STORE_VARIABLE

RECIPES = Path(__file__).parent / "recipes"
MODEL = "small"
PACKAGES = ("asyncio", "concurrent", "email", "http", "importlib", "json", "logging", "multiprocessing", "unittest")
# One way before and after the other: a machine that steadily gets slower or faster meanwhile favours neither.
ORDER = (BARE, DAGSTER, BARE)
WARM_UP = "import dagster, deepspeed, mlflow, torch, transformers"
REPEATS = 3
OVERHEAD = "dagster_overhead"
OVERHEAD_PERCENT = 10.0
REPEATED_SECONDS = 15.0
# What would lead the measured runs out of their own homes, into a store or a registry that others use.
LEFT_OUT = (SOURCES_VARIABLE, STORE_VARIABLE, MLFLOW_VARIABLE, DAGSTER_CONFIG_VARIABLE)
SHOWN_LINES = 20


@dataclass(frozen=True)
class TimedRun:
    """``total`` is the wall time of the whole process, from its start to its end; ``stages`` that of each stage."""

    way: str
    total: float
    stages: Mapping[str, float]


def orchestration(work: Path, progress: Progress) -> list[Figure]:
    """The small recipe's lineage from nothing to a registered model, bare and through Dagster.

    Every run is a fresh process over a fresh home, after one process that imported the large packages so that no
    run pays for a cold disk; the ways alternate as in ``ORDER``, and each way's figure is its mean. Bare, a
    stage's time is that of its function and of sealing; through Dagster it is that of the asset's step. The totals
    are of whole processes: what Dagster's import, its event log, the asset pages' plots and the live MLflow
    tracking cost is in them. These cost nearly the same however long the stages take: a run this small shows
    the overhead's share at its worst.

    ``repeated_run`` is `forge run` over a home that has everything, as a process.
    """
    homes = [work / f"home {number}" for number in range(len(ORDER))]
    with progress.task("a small lineage, bare and through Dagster", total=len(ORDER) + 2, unit="runs") as task:
        _process([sys.executable, "-P", "-c", WARM_UP], work, "importing what the runs import")
        task.advance()
        runs = []
        for way, home in zip(ORDER, homes, strict=True):
            runs.append(timed_run(way, home))
            task.advance()
        repeated = statistics.median(repeated_run(homes[ORDER.index(DAGSTER)]) for _ in range(REPEATS))
        task.advance()
    return [*compare(runs), Figure.at_most("repeated_run", repeated, "s", REPEATED_SECONDS)]


def timed_run(way: str, home: Path) -> TimedRun:
    """One run of the small recipe in the new folder ``home``."""
    lay_out_documents(home / "landing" / MODEL)
    report = home / "seconds.json"
    command = [sys.executable, "-P", "-m", "forge_pipeline.benchmarks.timed_run", way, MODEL, str(report)]
    total, _ = _process(command, home, f"the small recipe's run ({way})", environment_of(home))
    return TimedRun(way, total, json.loads(report.read_text(encoding="utf-8")))


def repeated_run(home: Path) -> float:
    """Seconds of `forge run` where everything is made already. Raises ForgeError if it made something."""
    command = [sys.executable, "-P", "-m", "forge_pipeline.cli.main", "run", MODEL, "--json"]
    seconds, answer = _process(command, home, "the repeated run", environment_of(home))
    made = json.loads(answer)["made"]
    if made:
        raise ForgeError(
            f"a repeated run made {', '.join(made)}, though nothing had changed",
            fix="find what differs in the two records' inputs, parameters or code version",
        )
    return seconds


def lay_out_documents(folder: Path) -> None:
    """Copy the packages into ``folder``: their source, and neither compiled code nor their tests."""
    library = Path(sysconfig.get_path("stdlib"))
    for package in PACKAGES:
        shutil.copytree(library / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "test*"))


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a run that keeps to ``home``."""
    kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    return kept | {HOME_VARIABLE: str(home), RECIPES_VARIABLE: str(RECIPES)}


def compare(runs: Sequence[TimedRun]) -> list[Figure]:
    """Mean seconds of each stage and of the whole, by way, and what Dagster adds to the whole."""
    figures, totals = [], {}
    for way in (BARE, DAGSTER):
        of_way = [run for run in runs if run.way == way]
        for stage in of_way[0].stages:
            seconds = statistics.mean(run.stages[stage] for run in of_way)
            figures.append(Figure(f"{way}_{stage}", seconds, "s"))
        totals[way] = statistics.mean(run.total for run in of_way)
        figures.append(Figure(f"{way}_total", totals[way], "s"))
    added = totals[DAGSTER] - totals[BARE]
    return [
        *figures,
        Figure(OVERHEAD, added, "s"),
        Figure.at_most(f"{OVERHEAD}_share", 100 * added / totals[BARE], "%", OVERHEAD_PERCENT),
    ]


def _process(
    command: Sequence[str], folder: Path, what: str, variables: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """Wall seconds and stdout of a process. Raises ForgeError, with the end of its stderr, if it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-SHOWN_LINES:])
        raise ForgeError(
            f"{what} ended with status {done.returncode}:\n{tail}", fix="correct what it says, then measure again"
        )
    return seconds, done.stdout
