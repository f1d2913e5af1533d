"""Run a part of the lineage through Dagster, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from forge_pipeline.components.assets import asset_key, show_partitions
from forge_pipeline.components.progress import Display, shown_on
from forge_pipeline.definitions import defs
from forge_pipeline.lineage.execution import Unit
from forge_pipeline.lineage.open import Project

MODEL_TAG = "forge/model"
# The display shows what happens; Dagster's own lines are in its event log.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_units(project: Project, model: str, units: Sequence[Unit], display: Display) -> None:
    """Make ``units`` in one Dagster run per new batch and one for the rest, recorded in the home's Dagster instance.

    The run is the model's own job with only the stale assets selected: the same that the Dagster UI runs. Raises
    the error of the stage that failed.
    """
    corpus = project.recipes.model(model).corpus
    with dg.DagsterInstance.get() as instance, shown_on(display):
        show_partitions(instance, corpus, project.batches(corpus).names())
        location = defs()
        job = location.resolve_job_def(model)
        batches = sorted({unit.batch for unit in units if unit.stage.partitioned and unit.batch})
        # Every batch's own stages first, batch by batch, the last one together with what all of them feed.
        for position, batch in enumerate(batches):
            last = position == len(batches) - 1
            chosen = [
                unit
                for unit in units
                if (unit.stage.partitioned and unit.batch == batch) or (last and not unit.stage.partitioned)
            ]
            _execute(job, instance, model, chosen, batch)
        if not batches and units:
            _execute(job, instance, model, units, None)


def _execute(
    job: dg.JobDefinition, instance: dg.DagsterInstance, model: str, units: Sequence[Unit], batch: str | None
) -> None:
    keys = sorted({asset_key(unit.stage.name) for unit in units})
    job.execute_in_process(
        instance=instance, asset_selection=keys, partition_key=batch, tags={MODEL_TAG: model}, run_config=QUIET
    )
