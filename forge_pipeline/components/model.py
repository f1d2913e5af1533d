"""A model recipe as a Dagster component."""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster.components import ComponentLoadContext
from pydantic import BaseModel

from forge_pipeline.components.assets import asset_key, batch_partitions, stage_assets
from forge_pipeline.lineage.model import model_stages
from forge_pipeline.lineage.open import Project
from forge_pipeline.lineage.recipes import ModelRecipe


class ModelComponent(dg.Component):
    """A model from its corpus's token shards to a registered version; one asset per stage."""

    def __init__(self, recipe: ModelRecipe) -> None:
        self.recipe = recipe

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return ModelRecipe

    @classmethod
    def load(cls, attributes: Any, context: ComponentLoadContext) -> ModelComponent:
        return cls(attributes)

    def build_defs(self, context: ComponentLoadContext) -> dg.Definitions:
        return model_definitions(context.path.name, self.recipe)


def model_definitions(name: str, recipe: ModelRecipe) -> dg.Definitions:
    stages = model_stages(name, recipe)
    own = dg.AssetSelection.assets(*(asset_key(stage.name) for stage in stages))
    job = dg.define_asset_job(
        name,
        selection=own.upstream(),
        description=f"The whole lineage of {name}: from the landing folder of {recipe.corpus} to a registered model.",
        partitions_def=batch_partitions(recipe.corpus),
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(assets=stage_assets(stages, Project.locate), jobs=[job], executor=dg.in_process_executor)
