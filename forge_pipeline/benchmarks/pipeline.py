"""The whole pipeline: what it learns, what running it through Dagster costs, and how long nothing takes."""

from __future__ import annotations

from pathlib import Path

from forge_pipeline.benchmarks.learning import MODEL, learning
from forge_pipeline.benchmarks.orchestration import OVERHEAD, OVERHEAD_PERCENT, orchestration
from forge_pipeline.benchmarks.registry import Figure
from forge_pipeline.benchmarks.startup import IMPORT_DEFINITIONS, time_starts
from forge_pipeline.reporting import Progress


def pipeline(work: Path, progress: Progress) -> list[Figure]:
    """The figures of `learning` (of the run in the home), of one start-up and of `orchestration`, in this order:
    what takes no time is first to say that something is missing.

    One more sets what Dagster added to the small run against the time that the stages of the quick run took when
    they were made: both have the same stages.
    """
    learned = learning(work, progress)
    started = time_starts([IMPORT_DEFINITIONS], work, progress)
    orchestrated = orchestration(work, progress)
    (added,) = [figure.value for figure in orchestrated if figure.name == OVERHEAD]
    seconds = sealed_seconds(MODEL)
    return [
        *learned,
        *started,
        *orchestrated,
        Figure("quick_run_stages", seconds, "s"),
        Figure.at_most(f"{OVERHEAD}_share_of_quick_run", 100 * added / seconds, "%", OVERHEAD_PERCENT),
    ]


def sealed_seconds(model: str) -> float:
    """What the stages of ``model`` and of its corpus took, from their records."""
    from forge_pipeline.lineage.open import Project

    project = Project.locate()
    lineage, owners = project.lineage(), (model, project.recipes.model(model).corpus)
    units = [unit for stage in lineage.stages if stage.name.owner in owners for unit in lineage.units(stage)]
    return sum(record.seconds for unit in units if (record := lineage.record(unit)) is not None)
