"""A corpus recipe as a Dagster component."""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster.components import ComponentLoadContext
from pydantic import BaseModel

from forge_pipeline.components.assets import asset_key, batch_partitions, register_batches, stage_assets
from forge_pipeline.components.progress import DagsterProgress
from forge_pipeline.errors import SourceError
from forge_pipeline.lineage.corpus import corpus_stages
from forge_pipeline.lineage.open import Project
from forge_pipeline.lineage.recipes import CorpusRecipe
from forge_pipeline.lineage.stage import StageName

SENSOR_SECONDS = 30


class CorpusComponent(dg.Component):
    """Documents from their sources to token shards; one asset per stage, one partition per batch."""

    def __init__(self, recipe: CorpusRecipe) -> None:
        self.recipe = recipe

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return CorpusRecipe

    @classmethod
    def load(cls, attributes: Any, context: ComponentLoadContext) -> CorpusComponent:
        return cls(attributes)

    def build_defs(self, context: ComponentLoadContext) -> dg.Definitions:
        return corpus_definitions(context.path.name, self.recipe)


def corpus_definitions(name: str, recipe: CorpusRecipe) -> dg.Definitions:
    stages = corpus_stages(name, recipe)
    assets = stage_assets(stages, Project.locate)
    job = dg.define_asset_job(
        f"{name}_batch",
        selection=dg.AssetSelection.assets(*(asset_key(stage.name) for stage in stages)),
        description=f"One batch of {name}, from the landing folder to token shards.",
        partitions_def=batch_partitions(name),
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(
        assets=assets, jobs=[job], sensors=[landing_sensor(name, job)], executor=dg.in_process_executor
    )


def landing_sensor(corpus: str, job: Any) -> dg.SensorDefinition:
    """New files become a batch, and the batch a run."""

    @dg.sensor(
        name=f"{corpus}_landing_sensor",
        job=job,
        minimum_interval_seconds=SENSOR_SECONDS,
        description=f"Turns new files in the sources of {corpus} into a batch and runs it to token shards.",
    )
    def landed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        project = Project.locate()
        try:
            register_batches(context.instance, project, corpus, DagsterProgress(context.log, None))
        except SourceError as error:
            return dg.SkipReason(error.problem)
        lineage = project.lineage()
        # Judged by what is sealed, not by what this sensor remembers: a batch whose tick died is asked for again,
        # and the run key keeps a batch from being asked for twice.
        shards = lineage.units(lineage.by_name[StageName(corpus, "token_shards")])
        requests = [
            dg.RunRequest(run_key=unit.batch, partition_key=unit.batch)
            for unit in shards
            if lineage.record(unit) is None
        ]
        if not requests:
            return dg.SkipReason("no new files have landed")
        return dg.SensorResult(run_requests=requests)

    return landed
