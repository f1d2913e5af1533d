"""One run of a lineage in a process of its own, with each stage timed.

python -m forge_pipeline.benchmarks.timed_run bare|dagster MODEL REPORT

The home and the recipes are the environment's. REPORT is written as JSON: the seconds of each stage.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forge_pipeline import environment

if TYPE_CHECKING:
    from forge_pipeline.lineage.execution import Unit
    from forge_pipeline.lineage.open import Project

BARE, DAGSTER = "bare", "dagster"


def main(way: str, model: str, report: Path) -> None:
    """Register what has landed, make everything that ``model`` needs, and write how long each stage took."""
    environment.prepare()
    from forge_pipeline.lineage.open import Project
    from forge_pipeline.reporting import SilentProgress

    project = Project.locate()
    corpus = project.recipes.model(model).corpus
    project.batches(corpus).register(SilentProgress())
    lineage = project.lineage()
    units = lineage.stale(stage.name for stage in lineage.stages if stage.name.owner in (model, corpus))
    seconds = {BARE: run_bare, DAGSTER: run_through_dagster}[way](project, model, units)
    report.write_text(json.dumps(seconds), encoding="utf-8")


def run_bare(project: Project, _model: str, units: Sequence[Unit]) -> dict[str, float]:
    """Make the units one after the other. A stage's time is that of its function and of sealing what it made."""
    from forge_pipeline.reporting import SilentProgress

    lineage, seconds = project.lineage(), dict.fromkeys((unit.stage.name.stage for unit in units), 0.0)
    for unit in units:
        began = time.perf_counter()
        lineage.make(unit, SilentProgress())
        seconds[unit.stage.name.stage] += time.perf_counter() - began
    return seconds


def run_through_dagster(project: Project, model: str, units: Sequence[Unit]) -> dict[str, float]:
    """Make the units as `forge run` does. A stage's time is that of its step, from Dagster's event log."""
    import dagster as dg

    from forge_pipeline.components.progress import display
    from forge_pipeline.components.run import run_units

    run_units(project, model, units, display())
    steps: dict[str, float] = {}
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs():
            for step in instance.get_run_step_stats(run.run_id):
                assert step.start_time is not None
                assert step.end_time is not None
                steps[step.step_key] = steps.get(step.step_key, 0.0) + step.end_time - step.start_time
    # Dagster names a step after its asset's key.
    return {unit.stage.name.stage: steps[f"{unit.stage.name.owner}__{unit.stage.name.stage}"] for unit in units}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
