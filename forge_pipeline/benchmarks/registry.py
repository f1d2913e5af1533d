"""Which benchmarks there are, and what the result of one holds."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from forge_pipeline.environment import CHECKOUT
from forge_pipeline.errors import ForgeError
from forge_pipeline.reporting import Progress

GIB = 1024**3
# Those whose release can change a figure.
PROJECTS = (
    *("forge-pipeline", "dagster", "torch", "deepspeed", "transformers", "tokenizers", "mlflow", "numpy", "pyarrow"),
    *("duckdb", "datasketch", "numba", "gigatoken"),
)


@dataclass(frozen=True)
class Figure:
    """One measured number. ``target`` says in words what it has to be ("<= 0.3") and ``holds`` whether it is;
    both are None for a number that is only told."""

    name: str
    value: float
    unit: str
    target: str | None = None
    holds: bool | None = None

    @classmethod
    def at_most(cls, name: str, value: float, unit: str, limit: float) -> Figure:
        return cls(name, value, unit, f"<= {limit:g}", value <= limit)

    @classmethod
    def at_least(cls, name: str, value: float, unit: str, limit: float) -> Figure:
        return cls(name, value, unit, f">= {limit:g}", value >= limit)


# Gets an empty folder to work in, which is removed afterwards, and tells how far it has come.
Measurement: TypeAlias = Callable[[Path, Progress], list[Figure]]


@dataclass(frozen=True)
class Benchmark:
    """``measurement`` is "module:function"; the module is imported only when the benchmark runs."""

    name: str
    description: str
    measurement: str

    def load(self) -> Measurement:
        module, function = self.measurement.split(":")
        found: Measurement = getattr(importlib.import_module(module), function)
        return found


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("startup", "how long the programs take to start", "forge_pipeline.benchmarks.startup:startup"),
        Benchmark(
            "learning",
            "what the quick run in the home learned, stage by stage",
            "forge_pipeline.benchmarks.learning:learning",
        ),
        Benchmark(
            "orchestration",
            "the same small lineage bare and through Dagster, and a run with nothing to do",
            "forge_pipeline.benchmarks.orchestration:orchestration",
        ),
        Benchmark(
            "pipeline",
            "learning and orchestration together, and the import of the definitions",
            "forge_pipeline.benchmarks.pipeline:pipeline",
        ),
    )
}


@dataclass(frozen=True)
class Result:
    """What is published of one benchmark: the figures, and what is needed to measure them again."""

    benchmark: str
    machine: dict[str, Any]
    versions: dict[str, str]
    command: str
    commit: str
    figures: list[Figure]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def holds(self) -> bool:
        return all(figure.holds is not False for figure in self.figures)


def measure(name: str, arguments: Sequence[str], work: Path, progress: Progress) -> Result:
    """Run the benchmark ``name``. ``arguments`` is the command line to record.

    Raises ForgeError if there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise ForgeError(f"there is no benchmark {name!r}", fix=f"choose one of: {', '.join(sorted(BENCHMARKS))}")
    figures = BENCHMARKS[name].load()(work, progress)
    return Result(name, machine(), versions(), shlex.join(arguments), commit(), figures)


def machine() -> dict[str, Any]:
    """The machine's processor, cores, memory in GiB, GPUs, system and Python."""
    import psutil

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "gpus": _gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    answer = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    return answer.stdout.splitlines() if answer.returncode == 0 else []


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PROJECTS}


def commit() -> str:
    """The checkout's commit, marked when the tree differs from it; "unknown" without git or outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    arguments = [git, "-C", str(CHECKOUT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    answer = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"
