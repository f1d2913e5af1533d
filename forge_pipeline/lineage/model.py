"""The stages of a model: from token shards to a registered version."""

from __future__ import annotations

from forge_pipeline.lineage.model_data import data_stages
from forge_pipeline.lineage.model_evaluation import evaluation_stage
from forge_pipeline.lineage.model_release import release_stages
from forge_pipeline.lineage.model_stage import Model
from forge_pipeline.lineage.model_training import training_stages
from forge_pipeline.lineage.recipes import ModelRecipe
from forge_pipeline.lineage.stage import Stage


def model_stages(owner: str, recipe: ModelRecipe) -> list[Stage]:
    """The stages of the model ``owner``; those that the recipe leaves out are not there."""
    model = Model(owner, recipe)
    training = training_stages(model)
    trained = [stage.name.stage for stage in training]
    measured = [made for stage in training for made in (stage, evaluation_stage(model, stage.name.stage))]
    return [*data_stages(model), *measured, *release_stages(model, trained)]
